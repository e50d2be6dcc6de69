// Command sandboxer is a sandbox controller outside of the daemon: a proxy plugin of type "sandbox". It keeps every sandbox in
// its own process and serves the tasks of all of them at one address, as a shim for many pods does.
//
//	sandboxer -path SOCKET -tasks SOCKET -events SOCKET -namespace NAME
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"

	sandboxruntime "github.com/containerd/containerd/api/runtime/sandbox/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	api "github.com/containerd/containerd/api/services/sandbox/v1"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"kevel.test/e2e/sandbox"
)

func main() {
	if sandbox.IsPause() {
		sandbox.Pause()
		return
	}
	path := flag.String("path", "", "`socket` of the controller")
	tasks := flag.String("tasks", "", "`socket` of the task service")
	events := flag.String("events", "", "ttrpc `socket` of the daemon")
	namespace := flag.String("namespace", "k8s.io", "namespace of the tasks")
	flag.Parse()
	if err := serve(*path, *tasks, *events, *namespace); err != nil {
		fmt.Fprintln(os.Stderr, "sandboxer:", err)
		os.Exit(1)
	}
}

func serve(path, tasks, events, namespace string) error {
	exits := make(chan os.Signal, 32)
	signal.Notify(exits, unix.SIGCHLD)
	go func() {
		for range exits {
			_ = reaper.Reap() // who waits for a child is told by the reaper
		}
	}()
	if err := reaper.SetSubreaper(1); err != nil {
		return err
	}
	ctx, end := shutdown.WithShutdown(namespaces.WithNamespace(context.Background(), namespace))
	publisher, err := shim.NewPublisher(events)
	if err != nil {
		return fmt.Errorf("connecting to the daemon: %w", err)
	}
	service, err := task.NewTaskService(ctx, publisher, end)
	if err != nil {
		return err
	}
	runtime, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		return err
	}
	taskapi.RegisterTTRPCTaskService(runtime, service)
	inner, err := net.Listen("unix", tasks)
	if err != nil {
		return err
	}
	outer, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterControllerServer(server, &controller{boxes: sandbox.New(func() {}), tasks: "ttrpc+unix://" + tasks})
	failed := make(chan error, 2)
	go func() { failed <- runtime.Serve(ctx, inner) }()
	go func() { failed <- server.Serve(outer) }()
	select {
	case err := <-failed:
		return err
	case <-end.Done():
		return errors.New("the task service was shut down, and every sandbox with it")
	}
}

// controller translates between the service of controllers and that of sandboxes.
type controller struct {
	api.UnimplementedControllerServer // Metrics and Update, which are optional
	boxes                             *sandbox.Service
	tasks                             string
}

func (c *controller) Create(ctx context.Context, request *api.ControllerCreateRequest) (*api.ControllerCreateResponse, error) {
	_, err := c.boxes.CreateSandbox(ctx, &sandboxruntime.CreateSandboxRequest{
		SandboxID:   request.SandboxID,
		Options:     request.Options,
		NetnsPath:   request.NetnsPath,
		Annotations: request.Annotations,
	})
	return &api.ControllerCreateResponse{SandboxID: request.SandboxID}, err
}

func (c *controller) Start(ctx context.Context, request *api.ControllerStartRequest) (*api.ControllerStartResponse, error) {
	started, err := c.boxes.StartSandbox(ctx, &sandboxruntime.StartSandboxRequest{SandboxID: request.SandboxID})
	if err != nil {
		return nil, err
	}
	return &api.ControllerStartResponse{
		SandboxID: request.SandboxID,
		Pid:       started.Pid,
		CreatedAt: started.CreatedAt,
		Address:   c.tasks,
		Version:   3,
	}, nil
}

func (c *controller) Platform(ctx context.Context, request *api.ControllerPlatformRequest) (*api.ControllerPlatformResponse, error) {
	found, err := c.boxes.Platform(ctx, &sandboxruntime.PlatformRequest{SandboxID: request.SandboxID})
	if err != nil {
		return nil, err
	}
	return &api.ControllerPlatformResponse{Platform: found.Platform}, nil
}

func (c *controller) Stop(ctx context.Context, request *api.ControllerStopRequest) (*api.ControllerStopResponse, error) {
	_, err := c.boxes.StopSandbox(ctx, &sandboxruntime.StopSandboxRequest{SandboxID: request.SandboxID, TimeoutSecs: request.TimeoutSecs})
	return &api.ControllerStopResponse{}, err
}

func (c *controller) Wait(ctx context.Context, request *api.ControllerWaitRequest) (*api.ControllerWaitResponse, error) {
	ended, err := c.boxes.WaitSandbox(ctx, &sandboxruntime.WaitSandboxRequest{SandboxID: request.SandboxID})
	if err != nil {
		return nil, err
	}
	return &api.ControllerWaitResponse{ExitStatus: ended.ExitStatus, ExitedAt: ended.ExitedAt}, nil
}

func (c *controller) Status(ctx context.Context, request *api.ControllerStatusRequest) (*api.ControllerStatusResponse, error) {
	status, err := c.boxes.SandboxStatus(ctx, &sandboxruntime.SandboxStatusRequest{SandboxID: request.SandboxID, Verbose: request.Verbose})
	if err != nil {
		return nil, err
	}
	return &api.ControllerStatusResponse{
		SandboxID: status.SandboxID,
		Pid:       status.Pid,
		State:     status.State,
		Info:      status.Info,
		CreatedAt: status.CreatedAt,
		ExitedAt:  status.ExitedAt,
		Address:   c.tasks,
		Version:   3,
	}, nil
}

func (c *controller) Shutdown(ctx context.Context, request *api.ControllerShutdownRequest) (*api.ControllerShutdownResponse, error) {
	_, err := c.boxes.ShutdownSandbox(ctx, &sandboxruntime.ShutdownSandboxRequest{SandboxID: request.SandboxID})
	return &api.ControllerShutdownResponse{}, err
}
