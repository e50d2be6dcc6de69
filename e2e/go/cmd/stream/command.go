package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"strings"

	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// command is a run of exec or attach.
type command struct {
	*common
	protocols string
	stdin     bool
	noStdout  bool
	stderr    bool
	tty       bool
	steps     string
	slow      int
	leave     string
}

// commandResult is what is printed of one.
type commandResult struct {
	// Code is the remote's exit code; 0 when it has none.
	Code int `json:"code"`
	// Error is what the client library made of the end, empty for a good one.
	Error  string `json:"error"`
	Stdout *seen  `json:"stdout"`
	Stderr *seen  `json:"stderr"`
}

func commandFlags(set *flag.FlagSet, shared *common) func(context.Context) any {
	c := &command{common: shared}
	set.StringVar(&c.protocols, "protocols", "", "protocol `names` to offer, with commas; the library's own choice without")
	set.BoolVar(&c.stdin, "stdin", false, "open standard input; -steps says what goes into it")
	set.BoolVar(&c.noStdout, "no-stdout", false, "do not open standard output")
	set.BoolVar(&c.stderr, "stderr", false, "open standard error")
	set.BoolVar(&c.tty, "tty", false, "the remote process has a terminal")
	set.StringVar(&c.steps, "steps", "", "JSON `list` of {wait, input, width, height, close}, done in order")
	set.IntVar(&c.slow, "slow", 0, "wait a millisecond after each of this many first `reads` of standard output")
	set.StringVar(&c.leave, "leave", "", "break the connection off when standard output has this `text` in it")
	return c.run
}

func (c *command) executor() (remotecommand.Executor, error) {
	protocols := strings.FieldsFunc(c.protocols, func(r rune) bool { return r == ',' })
	config := c.config()
	if c.websocket {
		if len(protocols) == 0 {
			return remotecommand.NewWebSocketExecutor(config, "GET", c.url)
		}
		return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", c.url, protocols...)
	}
	target, err := url.Parse(c.url)
	if err != nil {
		return nil, err
	}
	if len(protocols) == 0 {
		return remotecommand.NewSPDYExecutor(config, "POST", target)
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, "POST", target, protocols...)
}

func (c *command) run(parent context.Context) any {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	stdout, stderr := newSeen(c.slow), newSeen(0)
	result := &commandResult{Stdout: stdout, Stderr: stderr}
	err := c.stream(ctx, cancel, stdout, stderr)
	stdout.finish()
	stderr.finish()
	var code exec.ExitError
	if errors.As(err, &code) && code.Exited() {
		result.Code = code.ExitStatus()
	} else if err != nil {
		result.Error = err.Error()
	}
	return result
}

func (c *command) stream(ctx context.Context, cancel func(), stdout, stderr *seen) error {
	executor, err := c.executor()
	if err != nil {
		return err
	}
	steps, err := newSteps(c.steps, stdout)
	if err != nil {
		return fmt.Errorf("-steps: %w", err)
	}
	options := remotecommand.StreamOptions{Tty: c.tty}
	if !c.noStdout {
		options.Stdout = stdout
	}
	if c.stderr {
		options.Stderr = stderr
	}
	if c.stdin {
		options.Stdin = steps.input
	}
	if c.tty {
		options.TerminalSizeQueue = steps
	}
	go steps.run(ctx)
	if c.leave != "" {
		go func() {
			if stdout.wait(ctx, c.leave) {
				cancel()
			}
		}()
	}
	if err := executor.StreamWithContext(ctx, options); err != nil {
		return err
	}
	// An error of the connection is not to be taken for the end of a stream.
	if err := ctx.Err(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
