// Package spawn is how the shims of this module start their long-running process: on a socket that is made before it, so
// that it can be reached as soon as its address is known.
package spawn

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
)

// Serve starts this program again, as the process that serves id, with the listener as its file 3. It answers the
// address. The context carries the namespace.
func Serve(ctx context.Context, socketDir, daemon, id string) (string, error) {
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return "", err
	}
	if socketDir == "" {
		socketDir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	address, err := shim.CreateSocketAddress(ctx, socketDir, daemon, id, false)
	if err != nil {
		return "", err
	}
	listener, err := shim.NewSocket(address)
	if err != nil {
		return "", fmt.Errorf("making %s: %w", address, err)
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err != nil {
		return "", err
	}
	defer file.Close()
	bundle, err := os.Getwd()
	if err != nil {
		return "", err
	}
	command := exec.Command("/proc/self/exe", "-namespace", namespace, "-address", daemon, "-id", id)
	command.Args[0] = os.Args[0]
	command.Dir = bundle
	command.ExtraFiles = []*os.File{file}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		_ = shim.RemoveSocket(address)
		return "", err
	}
	return address, command.Process.Release()
}
