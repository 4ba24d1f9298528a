// Command backend is the sample back end: a small HTTP service on port 8080 that tells who answered.
//
// `backend migrate` stands for the migration of a database: it logs what it does, and ends.
//
// What it does is set by its environment, which its image has per tag:
//
//	PROJECT, TAG       named in every answer
//	POD_NAME           the pod (the host name when it is not set)
//	NODE_NAME          the node
//	CONFIG_FILE        read at start; the first 12 digits of its SHA-256 are in every answer
//	DATA_FOLDER        each start adds a line to the file starts in it; how many there are is in every answer
//	START_DELAY        how long after start it begins to listen, such as 30s
//	CRASH_AT_START=1   logs an error and exits with code 1
//	NEVER_READY=1      the readiness endpoint always refuses
//	FAIL_REQUESTS=1    it is healthy, and answers every request with status 500
//	FAIL_MIGRATION=1   `backend migrate` logs an error and exits with code 1
//	CONTROL=on         allows POST /control/{unready,ready,hang,fill,exit} to change this pod
//	DRAIN_SECONDS      how long requests in flight may go on after SIGTERM (20)
//	DRAIN=off          exits at once on SIGTERM: it is how a service loses requests
//	ADDRESS            where to listen (:8080)
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const defaultDrain = 20 * time.Second

// settings is what the environment asks for.
type settings struct {
	project, tag, pod, node string
	config                  string // first digits of the configuration file's hash; empty without one
	starts                  int    // how often a pod was started with this data; 0 without any
	address                 string
	startDelay              time.Duration
	drain                   time.Duration // negative: exit at once
	crash                   bool
	neverReady              bool
	failing                 bool
	control                 bool
}

func main() {
	chosen, err := readSettings(os.Getenv)
	if err != nil {
		logLine(map[string]any{"level": "error", "message": err.Error()})
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "migrate" {
		os.Exit(migrate(chosen, os.Getenv("FAIL_MIGRATION") == "1"))
	}
	if chosen.crash {
		crash(chosen)
	}
	if err := serve(chosen); err != nil {
		logLine(map[string]any{"level": "error", "message": err.Error()})
		os.Exit(1)
	}
}

// readSettings reads the environment, and the configuration file when one is named.
func readSettings(get func(string) string) (settings, error) {
	host, _ := os.Hostname()
	chosen := settings{
		project:    get("PROJECT"),
		tag:        get("TAG"),
		pod:        first(get("POD_NAME"), host),
		node:       get("NODE_NAME"),
		address:    first(get("ADDRESS"), ":8080"),
		drain:      defaultDrain,
		crash:      get("CRASH_AT_START") == "1",
		neverReady: get("NEVER_READY") == "1",
		failing:    get("FAIL_REQUESTS") == "1",
		control:    get("CONTROL") == "on",
	}
	if text := get("START_DELAY"); text != "" {
		delay, err := time.ParseDuration(text)
		if err != nil {
			return chosen, fmt.Errorf("START_DELAY: %w", err)
		}
		chosen.startDelay = delay
	}
	if text := get("DRAIN_SECONDS"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 0 {
			return chosen, fmt.Errorf("DRAIN_SECONDS: %q is no number of seconds", text)
		}
		chosen.drain = time.Duration(seconds) * time.Second
	}
	if get("DRAIN") == "off" {
		chosen.drain = -1
	}
	if path := get("CONFIG_FILE"); path != "" {
		content, err := os.ReadFile(path)
		if err != nil {
			return chosen, fmt.Errorf("CONFIG_FILE: %w", err)
		}
		hash := sha256.Sum256(content)
		chosen.config = hex.EncodeToString(hash[:])[:12]
	}
	if folder := get("DATA_FOLDER"); folder != "" {
		starts, err := countStart(folder, chosen.pod)
		if err != nil {
			return chosen, fmt.Errorf("DATA_FOLDER: %w", err)
		}
		chosen.starts = starts
	}
	return chosen, nil
}

// countStart adds a line to the file of starts, and returns how many there are.
func countStart(folder, pod string) (int, error) {
	path := filepath.Join(folder, "starts")
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if _, err := fmt.Fprintln(file, pod); err != nil {
		return 0, err
	}
	content, err := os.ReadFile(path)
	return bytes.Count(content, []byte("\n")), err
}

// serve listens until SIGTERM or SIGINT, then lets what is in flight finish.
func serve(chosen settings) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-signals:
		return nil
	case <-time.After(chosen.startDelay):
	}
	listener, err := net.Listen("tcp", chosen.address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           newService(chosen).routes(),
		ReadHeaderTimeout: 10 * time.Second,
		// Longer than the 90 s after which common proxies drop an idle connection: whoever closes first
		// may lose the other's next request.
		IdleTimeout: 3 * time.Minute,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	logLine(map[string]any{"message": "started", "project": chosen.project, "tag": chosen.tag,
		"pod": chosen.pod, "node": chosen.node, "address": listener.Addr().String()})
	select {
	case err := <-failed:
		return err
	case <-signals:
	}
	return stop(server, chosen)
}

// stop ends the server as the settings ask.
func stop(server *http.Server, chosen settings) error {
	started := time.Now()
	var err error
	if chosen.drain >= 0 {
		deadline, cancel := context.WithTimeout(context.Background(), chosen.drain)
		defer cancel()
		err = server.Shutdown(deadline)
	}
	line := map[string]any{"message": "stopped", "project": chosen.project, "tag": chosen.tag, "pod": chosen.pod,
		"drained_seconds": time.Since(started).Seconds()}
	if errors.Is(err, context.DeadlineExceeded) {
		line["message"] = "stopped with requests still in flight"
		err = nil
	}
	logLine(line)
	return err
}

// crash logs what a service with a broken configuration tends to log, and exits.
func crash(chosen settings) {
	fmt.Fprintf(os.Stderr, `Unhandled exception: cannot open database "orders": connection string is empty
   at Orders.Database.Open() in Database.cs:line 42
   at %s.Startup.Configure() in Startup.cs:line 17
   at %s.Program.Main(String[] args) in Program.cs:line 9
`, chosen.project, chosen.project)
	os.Exit(1)
}

// migrate logs what a migration tends to log, and returns its exit code.
func migrate(chosen settings, fails bool) int {
	logLine(map[string]any{"message": "migrating the database", "project": chosen.project, "tag": chosen.tag})
	if fails {
		logLine(map[string]any{"level": "error", "message": "duplicate column name: weight"})
		return 1
	}
	logLine(map[string]any{"message": "the database is migrated", "tag": chosen.tag})
	return 0
}

// logLine writes one line of JSON with the time.
func logLine(fields map[string]any) {
	fields["time"] = time.Now().UTC().Format(time.RFC3339Nano)
	line, _ := json.Marshal(fields)
	fmt.Println(string(line))
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
