// Command containerd-shim-sandbox-v1 is a shim that makes its sandboxes itself, by the sandbox service, and runs containers in
// them by runc's task service. It stands for shims of virtual machines: with sandboxer = "shim" there is no pause
// container. It is built on containerd's own shim library.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	sandboxapi "github.com/containerd/containerd/api/runtime/sandbox/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task/plugin"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"

	"kevel.test/e2e/sandbox"
	"kevel.test/e2e/spawn"
)

const name = "io.containerd.sandbox.v1"

func main() {
	if sandbox.IsPause() {
		sandbox.Pause()
		return
	}
	shim.RunShim(context.Background(), starter{tasks: manager.NewShimManager(name)})
}

func init() {
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "sandbox",
		Requires: []plugin.Type{plugins.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			found, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
			if err != nil {
				return nil, err
			}
			end := found.(shutdown.Service)
			// Not before the answer to the call is on its way.
			return service{sandbox.New(func() { time.AfterFunc(100*time.Millisecond, end.Shutdown) })}, nil
		},
	})
}

type service struct{ *sandbox.Service }

func (s service) RegisterTTRPC(server *ttrpc.Server) error {
	sandboxapi.RegisterTTRPCSandboxService(server, s.Service)
	return nil
}

// starter starts the shim, and cleans up after it.
type starter struct{ tasks shim.Shim }

func (starter) Name() string { return name }

func (starter) Start(ctx context.Context, params *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	address, err := spawn.Serve(ctx, params.GetSocketDir(), params.GetContainerdGrpcAddress(), params.GetInstanceID())
	if err != nil {
		return nil, err
	}
	return &bootapi.BootstrapResult{Version: 3, Address: address, Protocol: "ttrpc"}, nil
}

// Stop removes what a shim that died left: the process of a sandbox, or a container.
func (s starter) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	note, err := os.ReadFile(sandbox.PidFile)
	if errors.Is(err, os.ErrNotExist) {
		return s.tasks.Stop(ctx, id)
	}
	if err != nil {
		return shim.StopStatus{}, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(note)))
	if err != nil {
		return shim.StopStatus{}, err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return shim.StopStatus{}, err
	}
	return shim.StopStatus{Pid: pid, ExitStatus: 128 + int(syscall.SIGKILL), ExitedAt: time.Now()}, nil
}

func (s starter) Info(ctx context.Context, options io.Reader) (*types.RuntimeInfo, error) {
	return s.tasks.Info(ctx, options)
}
