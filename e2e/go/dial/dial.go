// Package dial holds what every test client of this module says on its command line about the daemon it talks to.
// What a client does with the connection is the client's own.
package dial

import (
	"context"
	"flag"
	"fmt"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// Target names one daemon and one namespace in it.
type Target struct {
	// Address is the path of the daemon's gRPC Unix socket.
	Address string
	// Namespace is sent with every call.
	Namespace string
	// Timeout bounds the whole run of the client, connecting included.
	Timeout time.Duration
}

// Flags registers the flags that fill a Target.
func Flags(set *flag.FlagSet) *Target {
	target := &Target{}
	set.StringVar(&target.Address, "address", "/run/containerd/containerd.sock", "the daemon's gRPC Unix `socket`")
	set.StringVar(&target.Namespace, "namespace", "default", "`namespace` of every call")
	set.DurationVar(&target.Timeout, "timeout", time.Minute, "bound of the whole run")
	return target
}

// Open connects and returns a context that carries the namespace and ends with the timeout. The caller calls cancel
// and closes the client.
func (t *Target) Open(parent context.Context) (context.Context, context.CancelFunc, *containerd.Client, error) {
	client, err := containerd.New(t.Address, containerd.WithTimeout(t.Timeout))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("connecting to %s: %w", t.Address, err)
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(parent, t.Namespace), t.Timeout)
	return ctx, cancel, client, nil
}
