// Command containerd-shim-grpc-v3 is a shim that serves version 3 of the task service over gRPC, where most speak ttrpc. The
// service itself is runc's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kevel.test/e2e/spawn"
)

const name = "io.containerd.grpc.v3"

// invocation is what the daemon says on the command line.
type invocation struct {
	namespace, address, id string
}

func main() {
	var call invocation
	flag.StringVar(&call.namespace, "namespace", "", "namespace of the container")
	flag.StringVar(&call.address, "address", "", "gRPC `socket` of the daemon")
	flag.StringVar(&call.id, "id", "", "id of the container")
	flag.String("publish-binary", "", "not needed: events go over ttrpc")
	flag.String("bundle", "", "not needed: it is the working directory")
	flag.Bool("debug", false, "not used")
	info := flag.Bool("info", false, "print what the runtime is")
	flag.Parse()
	ctx := namespaces.WithNamespace(context.Background(), call.namespace)
	var err error
	switch {
	case *info:
		err = describe(ctx)
	case flag.Arg(0) == "start":
		err = start(ctx, call)
	case flag.Arg(0) == "delete":
		err = remove(ctx, call)
	default:
		err = serve(ctx)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func describe(ctx context.Context) error {
	info, err := manager.NewShimManager(name).Info(ctx, os.Stdin)
	if err != nil {
		return err
	}
	return answer(info)
}

func answer(message proto.Message) error {
	data, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(data)
	return err
}

// start answers in JSON, as shims before the bootstrap message do.
func start(ctx context.Context, call invocation) error {
	input, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
	if err != nil {
		return err
	}
	params := &bootapi.BootstrapParams{}
	if err := proto.Unmarshal(input, params); err != nil {
		return fmt.Errorf("reading the parameters: %w", err)
	}
	address, err := spawn.Serve(ctx, params.GetSocketDir(), call.address, call.id)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"version": 3, "address": address, "protocol": "grpc"})
}

// remove has runc remove what is left of a container.
func remove(ctx context.Context, call invocation) error {
	children()
	status, err := manager.NewShimManager(name).Stop(ctx, call.id)
	if err != nil {
		return err
	}
	return answer(&taskapi.DeleteResponse{
		Pid:        uint32(status.Pid),
		ExitStatus: uint32(status.ExitStatus),
		ExitedAt:   timestamppb.New(status.ExitedAt),
	})
}

// children reaps child processes, which runc's service counts on.
func children() {
	exits := make(chan os.Signal, 32)
	signal.Notify(exits, unix.SIGCHLD)
	go func() {
		for range exits {
			_ = reaper.Reap() // who waits for a child is told by the reaper
		}
	}()
}

// tasks makes a gRPC server of the task service, whose methods are the same.
type tasks struct {
	taskapi.TTRPCTaskService
	taskapi.UnsafeTaskServer
}

func serve(ctx context.Context) error {
	if err := reaper.SetSubreaper(1); err != nil {
		return err
	}
	children()
	ctx, end := shutdown.WithShutdown(ctx)
	defer end.Shutdown()
	publisher, err := shim.NewPublisher(os.Getenv("TTRPC_ADDRESS"))
	if err != nil {
		return fmt.Errorf("connecting to the daemon: %w", err)
	}
	service, err := task.NewTaskService(ctx, publisher, end)
	if err != nil {
		return err
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	path := listener.Addr().String()
	defer os.Remove(path)
	server := grpc.NewServer()
	taskapi.RegisterTaskServer(server, tasks{TTRPCTaskService: service})
	go func() {
		<-end.Done()
		time.AfterFunc(2*time.Second, server.Stop) // connections that stay
		server.GracefulStop()
	}()
	if err := server.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}
