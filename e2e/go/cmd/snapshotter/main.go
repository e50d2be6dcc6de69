// Command snapshotter serves containerd's overlay snapshotter to other daemons: a proxy plugin, as containerd's users write
// them, on contrib/snapshotservice.
//
//	snapshotter -root FOLDER -path SOCKET
//
// It serves until it is killed; a socket that a dead one left is replaced. What it has made survives it in FOLDER.
package main

import (
	"flag"
	"fmt"
	"os"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/pkg/sys"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"google.golang.org/grpc"
)

func main() {
	root := flag.String("root", "", "`folder` of the snapshots")
	path := flag.String("path", "", "`socket` to listen on")
	flag.Parse()
	if *root == "" || *path == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := serve(*root, *path); err != nil {
		fmt.Fprintln(os.Stderr, "snapshotter:", err)
		os.Exit(1)
	}
}

func serve(root, path string) error {
	snapshotter, err := overlay.NewSnapshotter(root)
	if err != nil {
		return fmt.Errorf("opening %s: %w", root, err)
	}
	defer snapshotter.Close()
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	listener, err := sys.GetLocalListener(path, os.Getuid(), os.Getgid())
	if err != nil {
		return fmt.Errorf("listening on %s: %w", path, err)
	}
	defer listener.Close()
	return server.Serve(listener)
}
