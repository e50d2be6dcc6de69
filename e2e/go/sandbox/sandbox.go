// Package sandbox is a sandbox service as a virtual machine's shim has one: it makes the sandbox itself, from the pod's
// configuration, and needs no pause container. Its sandbox is one process that pins IPC, UTS and PID namespaces; the
// network namespace is the one it is told of. Everything it is told is shown by a verbose status, so that a test can
// compare it with what was meant.
package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	api "github.com/containerd/containerd/api/runtime/sandbox/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The states of a sandbox.
const (
	Ready    = "SANDBOX_READY"
	NotReady = "SANDBOX_NOTREADY"
)

// pause is the argument that makes a program the process of a sandbox.
const pause = "sandbox-pause"

// PidFile is where the process of a sandbox is noted in its bundle, for whoever cleans up after the shim.
const PidFile = "pause.pid"

// grace is how long the process of a sandbox gets to end by itself.
const grace = 5 * time.Second

// Service makes sandboxes.
type Service struct {
	mutex    sync.Mutex
	boxes    map[string]*box
	shutdown func()
}

type box struct {
	request *api.CreateSandboxRequest
	command *exec.Cmd
	created time.Time
	exited  time.Time
	status  uint32
	updates int
	done    chan struct{}
}

// New makes a service that calls shutdown when a sandbox is shut down.
func New(shutdown func()) *Service {
	return &Service{boxes: map[string]*box{}, shutdown: shutdown}
}

// IsPause says whether this process was started to be a sandbox: then it calls Pause and nothing else.
func IsPause() bool {
	return len(os.Args) == 3 && os.Args[1] == pause
}

// Pause is the process of a sandbox: it names its UTS namespace and waits to be told to end.
func Pause() {
	if err := syscall.Sethostname([]byte(os.Args[2])); err != nil {
		fmt.Fprintln(os.Stderr, "setting the host name:", err)
		os.Exit(1)
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	<-told
}

func (s *Service) find(id string) (*box, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if found, ok := s.boxes[id]; ok {
		return found, nil
	}
	return nil, errgrpc.ToGRPCf(errdefs.ErrNotFound, "no sandbox %q", id)
}

// CreateSandbox takes note of what is wanted.
func (s *Service) CreateSandbox(_ context.Context, request *api.CreateSandboxRequest) (*api.CreateSandboxResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, ok := s.boxes[request.SandboxID]; ok {
		return nil, errgrpc.ToGRPCf(errdefs.ErrAlreadyExists, "sandbox %q", request.SandboxID)
	}
	if request.NetnsPath != "" {
		if _, err := os.Stat(request.NetnsPath); err != nil {
			return nil, errgrpc.ToGRPCf(errdefs.ErrInvalidArgument, "netns_path: %v", err)
		}
	}
	s.boxes[request.SandboxID] = &box{request: request, done: make(chan struct{})}
	return &api.CreateSandboxResponse{}, nil
}

// StartSandbox starts the process.
func (s *Service) StartSandbox(_ context.Context, request *api.StartSandboxRequest) (*api.StartSandboxResponse, error) {
	found, err := s.find(request.SandboxID)
	if err != nil {
		return nil, err
	}
	command := exec.Command("/proc/self/exe", pause, hostname(found.request.Options.GetValue()))
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID,
		Setsid:     true,
	}
	exits, err := reaper.Default.Start(command)
	if err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("starting the process of sandbox %q: %w", request.SandboxID, err))
	}
	pid := command.Process.Pid
	s.mutex.Lock()
	found.command, found.created = command, time.Now()
	s.mutex.Unlock()
	go func() {
		status, err := reaper.Default.Wait(command, exits)
		if err != nil {
			status = 255
		}
		s.mutex.Lock()
		found.status, found.exited = uint32(status), time.Now()
		s.mutex.Unlock()
		close(found.done)
	}()
	if found.request.BundlePath != "" {
		note := filepath.Join(found.request.BundlePath, PidFile)
		if err := os.WriteFile(note, []byte(strconv.Itoa(pid)), 0o600); err != nil {
			return nil, errgrpc.ToGRPC(err)
		}
	}
	return &api.StartSandboxResponse{Pid: uint32(pid), CreatedAt: timestamppb.New(found.created)}, nil
}

// hostname is the host name in an encoded runtime.v1.PodSandboxConfig, its field 2. There is no need for all of CRI here.
func hostname(config []byte) string {
	for len(config) > 0 {
		number, kind, size := protowire.ConsumeTag(config)
		if size < 0 {
			return ""
		}
		config = config[size:]
		if number == 2 && kind == protowire.BytesType {
			name, _ := protowire.ConsumeString(config)
			return name
		}
		size = protowire.ConsumeFieldValue(number, kind, config)
		if size < 0 {
			return ""
		}
		config = config[size:]
	}
	return ""
}

// Platform is the host's.
func (s *Service) Platform(_ context.Context, request *api.PlatformRequest) (*api.PlatformResponse, error) {
	if _, err := s.find(request.SandboxID); err != nil {
		return nil, err
	}
	return &api.PlatformResponse{Platform: &types.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}}, nil
}

// StopSandbox ends the process.
func (s *Service) StopSandbox(ctx context.Context, request *api.StopSandboxRequest) (*api.StopSandboxResponse, error) {
	found, err := s.find(request.SandboxID)
	if err != nil {
		return nil, err
	}
	return &api.StopSandboxResponse{}, s.end(ctx, found)
}

func (s *Service) end(ctx context.Context, found *box) error {
	s.mutex.Lock()
	command := found.command
	s.mutex.Unlock()
	if command == nil {
		return nil
	}
	for _, what := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = command.Process.Signal(what) // it may have ended already
		select {
		case <-found.done:
			return nil
		case <-time.After(grace):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("process %d does not end", command.Process.Pid)
}

// WaitSandbox waits for the end of the process.
func (s *Service) WaitSandbox(ctx context.Context, request *api.WaitSandboxRequest) (*api.WaitSandboxResponse, error) {
	found, err := s.find(request.SandboxID)
	if err != nil {
		return nil, err
	}
	select {
	case <-found.done:
	case <-ctx.Done():
		return nil, errgrpc.ToGRPC(ctx.Err())
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return &api.WaitSandboxResponse{ExitStatus: found.status, ExitedAt: timestamppb.New(found.exited)}, nil
}

// SandboxStatus says how the sandbox is and, when asked to be verbose, what it was told.
func (s *Service) SandboxStatus(_ context.Context, request *api.SandboxStatusRequest) (*api.SandboxStatusResponse, error) {
	found, err := s.find(request.SandboxID)
	if err != nil {
		return nil, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answer := &api.SandboxStatusResponse{SandboxID: request.SandboxID, State: NotReady}
	if found.command != nil {
		answer.Pid = uint32(found.command.Process.Pid)
		answer.CreatedAt = timestamppb.New(found.created)
		select {
		case <-found.done:
			answer.ExitedAt = timestamppb.New(found.exited)
		default:
			answer.State = Ready
		}
	}
	if request.Verbose {
		annotations, err := json.Marshal(found.request.Annotations)
		if err != nil {
			return nil, err
		}
		answer.Info = map[string]string{
			"annotations": string(annotations),
			"bundle":      found.request.BundlePath,
			"netns":       found.request.NetnsPath,
			"options":     found.request.Options.GetTypeUrl(),
			"config":      fmt.Sprintf("%x", found.request.Options.GetValue()),
			"updates":     strconv.Itoa(found.updates),
		}
	}
	return answer, nil
}

// PingSandbox says that the sandbox is there.
func (s *Service) PingSandbox(_ context.Context, request *api.PingRequest) (*api.PingResponse, error) {
	_, err := s.find(request.SandboxID)
	return &api.PingResponse{}, err
}

// ShutdownSandbox ends the process if need be, forgets the sandbox and then ends the service.
func (s *Service) ShutdownSandbox(ctx context.Context, request *api.ShutdownSandboxRequest) (*api.ShutdownSandboxResponse, error) {
	found, err := s.find(request.SandboxID)
	if err != nil {
		return nil, err
	}
	if err := s.end(ctx, found); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	s.mutex.Lock()
	delete(s.boxes, request.SandboxID)
	s.mutex.Unlock()
	s.shutdown()
	return &api.ShutdownSandboxResponse{}, nil
}

// SandboxMetrics is not offered, as the contract allows.
func (s *Service) SandboxMetrics(context.Context, *api.SandboxMetricsRequest) (*api.SandboxMetricsResponse, error) {
	return nil, errgrpc.ToGRPCf(errdefs.ErrNotImplemented, "metrics of sandboxes")
}

// UpdateSandbox counts.
func (s *Service) UpdateSandbox(_ context.Context, request *api.UpdateSandboxRequest) (*api.UpdateSandboxResponse, error) {
	found, err := s.find(request.SandboxID)
	if err != nil {
		return nil, err
	}
	s.mutex.Lock()
	found.updates++
	s.mutex.Unlock()
	return &api.UpdateSandboxResponse{}, nil
}
