package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

const (
	longestDelay    = 30 * time.Second
	callTimeout     = 5 * time.Second
	longestCallBody = 64 << 10
	filledMebibytes = 96
)

// service answers requests; its state can be changed by /control.
type service struct {
	settings
	unready atomic.Bool
	hanging atomic.Bool
	client  *http.Client
	exit    func(code int)
}

// answer is the one line of JSON that every path gives.
type answer struct {
	Project string `json:"project"`
	Tag     string `json:"tag"`
	Pod     string `json:"pod"`
	Node    string `json:"node"`
	Path    string `json:"path"`
	Config  string `json:"config,omitempty"`
	Starts  int    `json:"starts,omitempty"`
	Error   string `json:"error,omitempty"`
	Called  *call  `json:"called,omitempty"`
}

// call is what another service said.
type call struct {
	URL    string `json:"url"`
	Status int    `json:"status,omitempty"`
	Body   any    `json:"body,omitempty"`
}

func newService(chosen settings) *service {
	// A connection for each call: its name is looked up and a pod is chosen anew, as the caller of a
	// service that is being released should see it. No proxy: services are called directly.
	client := &http.Client{Timeout: callTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	made := &service{settings: chosen, client: client, exit: os.Exit}
	made.unready.Store(chosen.neverReady)
	return made
}

func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.tell)
	mux.HandleFunc("/call", s.call)
	mux.HandleFunc("/healthz/startup", func(w http.ResponseWriter, r *http.Request) { s.reply(w, r, http.StatusOK, answer{}) })
	mux.HandleFunc("/healthz/ready", s.ready)
	mux.HandleFunc("/healthz/live", func(w http.ResponseWriter, r *http.Request) { s.reply(w, r, http.StatusOK, answer{}) })
	mux.HandleFunc("/control/{action}", s.steer)
	return s.unlessHanging(mux)
}

// unlessHanging answers nothing at all once this pod was told to hang, as a process in a deadlock.
func (s *service) unlessHanging(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.hanging.Load() {
			<-r.Context().Done()
			return
		}
		next.ServeHTTP(w, r)
	})
}

// tell answers any path, after a delay when one is asked for.
func (s *service) tell(w http.ResponseWriter, r *http.Request) {
	if text := r.URL.Query().Get("delay"); text != "" {
		delay, err := time.ParseDuration(text)
		if err != nil || delay < 0 || delay > longestDelay {
			s.reply(w, r, http.StatusBadRequest, answer{Error: fmt.Sprintf("delay must be a time from 0s to %s", longestDelay)})
			return
		}
		if !sleep(r.Context(), delay) {
			return
		}
	}
	if s.failing {
		s.reply(w, r, http.StatusInternalServerError, answer{Error: "no such column: orders.weight"})
		return
	}
	s.reply(w, r, http.StatusOK, answer{})
}

// call asks another service and relays what it says; 502 when it can't be reached or fails itself.
func (s *service) call(w http.ResponseWriter, r *http.Request) {
	asked := &call{URL: r.URL.Query().Get("url")}
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, asked.URL, nil)
	if err != nil || request.URL.Scheme != "http" || request.URL.Host == "" {
		s.reply(w, r, http.StatusBadRequest, answer{Error: "url must be an http:// address", Called: asked})
		return
	}
	response, err := s.client.Do(request)
	if err != nil {
		s.reply(w, r, http.StatusBadGateway, answer{Error: err.Error(), Called: asked})
		return
	}
	defer response.Body.Close()
	asked.Status = response.StatusCode
	body, err := io.ReadAll(io.LimitReader(response.Body, longestCallBody))
	asked.Body = string(body)
	if json.Valid(body) {
		asked.Body = json.RawMessage(body)
	}
	switch {
	case err != nil:
		s.reply(w, r, http.StatusBadGateway, answer{Error: err.Error(), Called: asked})
	case response.StatusCode >= http.StatusInternalServerError:
		s.reply(w, r, http.StatusBadGateway, answer{Error: "the called service failed", Called: asked})
	default:
		s.reply(w, r, http.StatusOK, answer{Called: asked})
	}
}

func (s *service) ready(w http.ResponseWriter, r *http.Request) {
	if s.unready.Load() {
		s.reply(w, r, http.StatusServiceUnavailable, answer{Error: "not ready"})
		return
	}
	s.reply(w, r, http.StatusOK, answer{})
}

// steer changes how this pod behaves, where that is allowed.
func (s *service) steer(w http.ResponseWriter, r *http.Request) {
	if !s.control {
		s.reply(w, r, http.StatusForbidden, answer{Error: "control is off: start with CONTROL=on"})
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		s.reply(w, r, http.StatusMethodNotAllowed, answer{Error: "POST only"})
		return
	}
	switch action := r.PathValue("action"); action {
	case "unready":
		s.unready.Store(true)
	case "ready":
		s.unready.Store(s.neverReady)
	case "hang":
		s.hanging.Store(true)
	case "exit":
		// The answer has to be out before the process ends.
		time.AfterFunc(50*time.Millisecond, func() { s.exit(1) })
	case "fill":
		if err := fill(); err != nil {
			s.reply(w, r, http.StatusInsufficientStorage, answer{Error: err.Error()})
			return
		}
	default:
		s.reply(w, r, http.StatusNotFound, answer{Error: "no such action: unready, ready, hang, fill or exit"})
		return
	}
	s.reply(w, r, http.StatusOK, answer{})
}

// fill writes a file to the temporary directory, as a service that never tidies up does in the end.
func fill() error {
	file, err := os.CreateTemp("", "fill")
	if err != nil {
		return err
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for range filledMebibytes {
		if _, err := file.Write(block); err != nil {
			return err
		}
	}
	return nil
}

// reply writes the answer with what every answer has.
func (s *service) reply(w http.ResponseWriter, r *http.Request, status int, said answer) {
	said.Project, said.Tag, said.Pod, said.Node = s.project, s.tag, s.pod, s.node
	said.Path, said.Config, said.Starts = r.URL.Path, s.config, s.starts
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(said)
}

// sleep waits, and tells whether the whole time passed.
func sleep(stop context.Context, delay time.Duration) bool {
	select {
	case <-time.After(delay):
		return true
	case <-stop.Done():
		return false
	}
}
