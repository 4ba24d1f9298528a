// Command imagebuild makes OCI images without a container engine, and pushes them.
//
//	imagebuild build PLAN LAYOUT      reads the plan (JSON), writes an OCI image layout into a new folder
//	imagebuild push LAYOUT ENDPOINT   pushes what http://host:port does not have yet, prints a line of JSON
//
// The same plan and layers give the same digests: nothing of the machine or the time gets in.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = "usage: imagebuild build PLAN LAYOUT | imagebuild push LAYOUT ENDPOINT"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "imagebuild:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(arguments) != 3 {
		return errors.New(usage)
	}
	switch arguments[0] {
	case "build":
		return build(arguments[1], arguments[2])
	case "push":
		return push(stopped, arguments[1], arguments[2], os.Stdout)
	}
	return errors.New(usage)
}
