// Command twinport keeps a verified twin of every container image in another
// region, cloud or registry. A file for each subcommand; wire.go is the one
// place where the config meets the code.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// Exit codes, the same for every command.
const (
	exitDone        = 0
	exitFailed      = 1 // something failed, was refused, is missing, corrupt or not in sync
	exitUsage       = 2 // usage or config
	exitInterrupted = 130
)

// softMemory is where the garbage collector begins to work harder; GOMEMLIMIT
// sets another. What is live stays well below: blobs on their way take at most
// 48 MiB, and half as much again waits for an answer.
const softMemory = 80 << 20

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and gives its exit code.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(os.Stderr, "twinport: "+exit.err.Error())
		}
		return exit.code
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "twinport: interrupted")
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "twinport: "+err.Error())
	return exitFailed
}

// An exitError ends the process with a code of its own; with err nil, the
// command has said everything already.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// usage is an error that exits 2.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return exitError{exitUsage, err}
}
