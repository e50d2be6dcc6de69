// Command stream goes to a URL that CRI's Exec, Attach or PortForward answered, as kubectl does: with Kubernetes' own
// client library, over SPDY or WebSocket. It prints one JSON object that says what came.
//
//	stream command [flags] URL     exec or attach
//	stream forward [flags] URL     port-forward: local connections, each with a payload and a half-close
//
// Exit status: 0 when there is something to print (the remote's exit code and error are in it), 2 for a wrong command
// line.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	restclient "k8s.io/client-go/rest"
)

// common is what both ways have on their command line.
type common struct {
	websocket bool
	timeout   time.Duration
	url       string
}

func (c *common) flags(set *flag.FlagSet) {
	set.BoolVar(&c.websocket, "websocket", false, "use a WebSocket and not SPDY")
	set.DurationVar(&c.timeout, "timeout", time.Minute, "bound of the whole run")
}

func (c *common) parse(set *flag.FlagSet, arguments []string) error {
	if err := set.Parse(arguments); err != nil {
		return err
	}
	if set.NArg() != 1 {
		return fmt.Errorf("one URL, not %d arguments", set.NArg())
	}
	c.url = set.Arg(0)
	return nil
}

// config trusts any certificate: the server signs its own.
func (c *common) config() *restclient.Config {
	return &restclient.Config{TLSClientConfig: restclient.TLSClientConfig{Insecure: true}}
}

func run(arguments []string) (any, error) {
	if len(arguments) == 0 {
		return nil, fmt.Errorf("command or forward")
	}
	var (
		shared = &common{}
		set    = flag.NewFlagSet(arguments[0], flag.ContinueOnError)
		work   func(context.Context) any
	)
	switch arguments[0] {
	case "command":
		work = commandFlags(set, shared)
	case "forward":
		work = forwardFlags(set, shared)
	default:
		return nil, fmt.Errorf("command or forward, not %q", arguments[0])
	}
	shared.flags(set)
	if err := shared.parse(set, arguments[1:]); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), shared.timeout)
	defer cancel()
	return work(ctx), nil
}

func main() {
	result, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "stream:", err)
		os.Exit(2)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(result); err != nil {
		fmt.Fprintln(os.Stderr, "stream:", err)
		os.Exit(2)
	}
}
