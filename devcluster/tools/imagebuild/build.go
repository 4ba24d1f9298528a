package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// refName is where the OCI image layout keeps the name of an image.
const refName = "org.opencontainers.image.ref.name"

// plan is what the caller writes.
type plan struct {
	Architecture string  `json:"architecture"`
	Images       []image `json:"images"`
}

type image struct {
	Repository string            `json:"repository"`
	Tags       []string          `json:"tags"`
	Layers     []string          `json:"layers"` // tar files in the plan's folder, the lowest first
	Created    time.Time         `json:"created"`
	User       string            `json:"user"`
	Entrypoint []string          `json:"entrypoint"`
	Env        []string          `json:"env"`
	Ports      []string          `json:"ports"` // such as 8080/tcp
	StopSignal string            `json:"stopSignal"`
	Labels     map[string]string `json:"labels"`
}

// build writes all images of a plan, and each layer once however many images have it.
func build(planPath, layoutPath string) error {
	wanted, err := readPlan(planPath)
	if err != nil {
		return err
	}
	layers := map[string]v1.Layer{}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, one := range wanted.Images {
		made, err := one.make(wanted.Architecture, filepath.Dir(planPath), layers)
		if err != nil {
			return fmt.Errorf("%s: %w", one.Repository, err)
		}
		for _, tag := range one.Tags {
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: made, Descriptor: v1.Descriptor{
				Annotations: map[string]string{refName: one.Repository + ":" + tag},
			}})
		}
	}
	_, err = layout.Write(layoutPath, index)
	return err
}

// readPlan reads a plan and refuses keys that it does not know.
func readPlan(path string) (plan, error) {
	var read plan
	content, err := os.ReadFile(path)
	if err != nil {
		return read, err
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return read, fmt.Errorf("%s: %w", path, err)
	}
	return read, nil
}

// make stacks the layers and sets the configuration.
func (i image) make(architecture, folder string, layers map[string]v1.Layer) (v1.Image, error) {
	made := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, path := range i.Layers {
		layer, err := openLayer(filepath.Join(folder, path), layers)
		if err != nil {
			return nil, err
		}
		added := mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: i.Created}, CreatedBy: "imagebuild"}}
		if made, err = mutate.Append(made, added); err != nil {
			return nil, err
		}
	}
	file, err := made.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", architecture, v1.Time{Time: i.Created}
	file.Config = v1.Config{User: i.User, Entrypoint: i.Entrypoint, Env: i.Env, Labels: i.Labels,
		StopSignal: i.StopSignal, WorkingDir: "/", ExposedPorts: map[string]struct{}{}}
	for _, port := range i.Ports {
		file.Config.ExposedPorts[port] = struct{}{}
	}
	return mutate.ConfigFile(made, file)
}

// openLayer returns the layer of a tar file, compressed once and kept.
func openLayer(path string, layers map[string]v1.Layer) (v1.Layer, error) {
	if known, ok := layers[path]; ok {
		return known, nil
	}
	layer, err := tarball.LayerFromFile(path, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	layers[path] = layer
	return layer, nil
}
