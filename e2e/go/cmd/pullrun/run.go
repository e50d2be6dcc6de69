package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// cleanupTimeout bounds the clean-up, which has to happen after the run's own time is over as well.
const cleanupTimeout = 30 * time.Second

// run is one run: the options, the result so far and the objects that exist.
type run struct {
	Result
	options   *options
	client    *containerd.Client
	image     containerd.Image
	container containerd.Container
	task      containerd.Task
	stdout    bytes.Buffer
	stderr    bytes.Buffer
	// stdinSent is closed once the whole standard input is in the FIFO.
	stdinSent chan struct{}
}

// all does every step; the outcome is in r.Result.
func (r *run) all(parent context.Context) {
	var ctx context.Context
	var cancel context.CancelFunc
	if !r.step("connect", func() (err error) {
		ctx, cancel, r.client, err = r.options.target.Open(parent)
		return err
	}) {
		return
	}
	defer func() {
		cancel()
		_ = r.client.Close()
	}()
	r.step("version", func() error { return r.version(ctx) })
	r.step("pull", func() error { return r.pull(ctx) })
	r.step("inspect", func() error { return r.inspect(ctx) })
	if !r.options.pullOnly {
		r.step("create", func() error { return r.create(ctx) })
		r.step("task", func() error { return r.newTask(ctx) })
		r.runTask(ctx)
	}
	r.cleanup(parent)
}

func (r *run) version(ctx context.Context) error {
	version, err := r.client.Version(ctx)
	r.Server = strings.TrimSpace(version.Version + " " + version.Revision)
	return err
}

func (r *run) resolver(ctx context.Context) remotes.Resolver {
	hosts := config.HostOptions{}
	if r.options.hostsDir != "" {
		hosts.HostDir = config.HostDirFromRoot(r.options.hostsDir)
	}
	if r.options.plainHTTP {
		hosts.DefaultScheme = "http"
	}
	if name, password, found := strings.Cut(r.options.user, ":"); found {
		hosts.Credentials = func(string) (string, string, error) { return name, password, nil }
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: config.ConfigureHosts(ctx, hosts)})
}

func (r *run) pull(ctx context.Context) (err error) {
	r.image, err = r.client.Pull(ctx, r.options.reference, containerd.WithPullUnpack,
		containerd.WithPullSnapshotter(r.options.snapshotter), containerd.WithResolver(r.resolver(ctx)))
	return err
}

func (r *run) inspect(ctx context.Context) error {
	target := r.image.Target()
	r.Image = &Image{Name: r.image.Name(), Digest: target.Digest.String(), MediaType: target.MediaType}
	size, err := r.image.Size(ctx)
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	layers, err := r.image.RootFS(ctx)
	if err != nil {
		return fmt.Errorf("layers: %w", err)
	}
	for _, layer := range layers {
		r.Image.Layers = append(r.Image.Layers, layer.String())
	}
	r.Image.Size = size
	r.Image.Unpacked, err = r.image.IsUnpacked(ctx, r.options.snapshotter)
	return err
}

func (r *run) create(ctx context.Context) (err error) {
	spec := []oci.SpecOpts{oci.WithImageConfig(r.image)}
	if len(r.options.arguments) > 0 {
		spec = append(spec, oci.WithProcessArgs(r.options.arguments...))
	}
	var shim any
	if r.options.runtimeBin != "" {
		shim = &runcoptions.Options{BinaryName: r.options.runtimeBin}
	}
	r.container, err = r.client.NewContainer(ctx, r.options.id, containerd.WithImage(r.image),
		containerd.WithSnapshotter(r.options.snapshotter), containerd.WithNewSnapshot(r.options.id, r.image),
		containerd.WithRuntime(r.options.runtime, shim), containerd.WithNewSpec(spec...))
	return err
}

// sentReader closes sent when it is asked for more than there is: a copier asks once it has written all it got.
type sentReader struct {
	text *strings.Reader
	sent chan struct{}
}

func (s *sentReader) Read(buffer []byte) (int, error) {
	n, err := s.text.Read(buffer)
	if err != nil {
		close(s.sent)
	}
	return n, err
}

func (r *run) newTask(ctx context.Context) (err error) {
	streams := cio.WithStreams(nil, &r.stdout, &r.stderr)
	if r.options.stdin != "" {
		r.stdinSent = make(chan struct{})
		streams = cio.WithStreams(&sentReader{strings.NewReader(r.options.stdin), r.stdinSent}, &r.stdout, &r.stderr)
	}
	r.task, err = r.container.NewTask(ctx, cio.NewCreator(streams))
	return err
}

// runTask starts the task and follows it to its end and its deletion.
func (r *run) runTask(ctx context.Context) {
	var exited <-chan containerd.ExitStatus
	r.step("wait", func() (err error) {
		exited, err = r.task.Wait(ctx)
		return err
	})
	r.step("start", func() error { return r.task.Start(ctx) })
	if r.options.stdin != "" {
		r.step("close stdin", func() error { return r.closeStdin(ctx) })
	}
	if r.options.exec != "" {
		r.step("exec", func() error { return r.exec(ctx) })
		r.step("kill", func() error { return r.task.Kill(ctx, syscall.SIGKILL) })
	}
	r.step("exit", func() error {
		r.Pid = r.task.Pid()
		code, err := exitCode(ctx, exited)
		r.Init = &Output{ExitCode: code}
		return err
	})
	if r.step("delete task", func() error {
		_, err := r.task.Delete(ctx)
		return err
	}) {
		// Delete has waited for the copying of both streams, so the buffers are whole and ours.
		r.task, r.Init.Stdout, r.Init.Stderr = nil, r.stdout.String(), r.stderr.String()
	}
}

// closeStdin ends the container's standard input. The shim holds the FIFO open as well, so the client's own closing is
// not enough, and closing before everything is in the FIFO would cut it off.
func (r *run) closeStdin(ctx context.Context) error {
	select {
	case <-r.stdinSent:
		return r.task.CloseIO(ctx, containerd.WithStdinCloser)
	case <-ctx.Done():
		return fmt.Errorf("sending standard input: %w", ctx.Err())
	}
}

func (r *run) exec(ctx context.Context) error {
	spec, err := r.container.Spec(ctx)
	if err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	process := specs.Process{Args: []string{"/bin/sh", "-c", r.options.exec}, Cwd: "/", Env: spec.Process.Env}
	var stdout, stderr bytes.Buffer
	extra, err := r.task.Exec(ctx, "exec", &process, cio.NewCreator(cio.WithStreams(nil, &stdout, &stderr)))
	if err != nil {
		return fmt.Errorf("adding: %w", err)
	}
	exited, err := extra.Wait(ctx)
	if err != nil {
		return fmt.Errorf("waiting: %w", err)
	}
	if err := extra.Start(ctx); err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	code, err := exitCode(ctx, exited)
	if err != nil {
		return err
	}
	if _, err := extra.Delete(ctx); err != nil {
		return fmt.Errorf("deleting: %w", err)
	}
	r.Exec = &Output{ExitCode: code, Stdout: stdout.String(), Stderr: stderr.String()}
	return nil
}

// exitCode waits for the exit of a process. The client reports its own failures (a lost connection, an ended context)
// through the same channel.
func exitCode(ctx context.Context, exited <-chan containerd.ExitStatus) (uint32, error) {
	select {
	case status := <-exited:
		code, _, err := status.Result()
		return code, err
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for the exit: %w", ctx.Err())
	}
}

// cleanup removes whatever exists and says what stayed.
func (r *run) cleanup(parent context.Context) {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(parent, r.options.target.Namespace), cleanupTimeout)
	defer cancel()
	if r.task != nil {
		r.always("kill task", func() error {
			_, err := r.task.Delete(ctx, containerd.WithProcessKill)
			return absent(err)
		})
	}
	if r.container != nil {
		r.always("delete container", func() error {
			return absent(r.container.Delete(ctx, containerd.WithSnapshotCleanup))
		})
	}
	if r.image != nil && !r.options.keepImage {
		r.always("delete image", func() error {
			return absent(r.client.ImageService().Delete(ctx, r.image.Name(), images.SynchronousDelete()))
		})
	}
	r.always("look for leftovers", func() error { return r.leftovers(ctx) })
}

func (r *run) leftovers(ctx context.Context) error {
	note := func(what string, err error) error {
		if err == nil {
			r.Left = append(r.Left, what)
		}
		return absent(err)
	}
	_, container := r.client.LoadContainer(ctx, r.options.id)
	_, snapshot := r.client.SnapshotService(r.options.snapshotter).Stat(ctx, r.options.id)
	failures := []error{note("container "+r.options.id, container), note("snapshot "+r.options.id, snapshot)}
	if r.image != nil && !r.options.keepImage {
		_, image := r.client.GetImage(ctx, r.image.Name())
		failures = append(failures, note("image "+r.image.Name(), image))
	}
	if len(r.Left) > 0 {
		failures = append(failures, fmt.Errorf("left behind: %s", strings.Join(r.Left, ", ")))
	}
	return errors.Join(failures...)
}

// absent turns "it is not there" into success.
func absent(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
