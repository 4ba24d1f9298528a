package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"
)

const pushesAtOnce = 4

// outcome is what push prints.
type outcome struct {
	Pushed  int64 `json:"pushed"`
	Present int64 `json:"present"`
}

// push sends every image of a layout to the registry at endpoint, save those that it has under that tag.
func push(stopped context.Context, layoutPath, endpoint string, out io.Writer) error {
	host, plain := strings.CutPrefix(endpoint, "http://")
	if !plain {
		return fmt.Errorf("%s: the endpoint must be http://host:port", endpoint)
	}
	host = strings.TrimSuffix(host, "/")
	index, err := layout.ImageIndexFromPath(layoutPath)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	group, working := errgroup.WithContext(stopped)
	group.SetLimit(pushesAtOnce)
	pusher, err := newPusher(working)
	if err != nil {
		return err
	}
	var done outcome
	for _, descriptor := range manifest.Manifests {
		group.Go(func() error { return pushOne(working, pusher, index, descriptor, host, &done) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(done)
}

// client is what pushing needs of a registry.
type client struct {
	pusher  *remote.Pusher
	options []remote.Option
}

func newPusher(working context.Context) (client, error) {
	transport := remote.DefaultTransport.(*http.Transport).Clone()
	// The registry is on this machine's own network: a proxy of the environment could not reach it.
	transport.Proxy = nil
	options := []remote.Option{remote.WithTransport(transport), remote.WithContext(working), remote.WithJobs(pushesAtOnce)}
	pusher, err := remote.NewPusher(options...)
	return client{pusher, options}, err
}

func pushOne(working context.Context, to client, index v1.ImageIndex, wanted v1.Descriptor, host string, done *outcome) error {
	reference, err := name.NewTag(host+"/"+wanted.Annotations[refName], name.Insecure, name.StrictValidation)
	if err != nil {
		return err
	}
	if found, err := remote.Head(reference, to.options...); err == nil && found.Digest == wanted.Digest {
		atomic.AddInt64(&done.Present, 1)
		return nil
	}
	image, err := index.Image(wanted.Digest)
	if err != nil {
		return err
	}
	if err := to.pusher.Push(working, reference, image); err != nil {
		return fmt.Errorf("%s: %w", reference, err)
	}
	atomic.AddInt64(&done.Pushed, 1)
	return nil
}
