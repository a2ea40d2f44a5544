// Serves containerd's own overlayfs snapshotter on a Unix socket: `overlayfs ROOT SOCKET`, until SIGTERM. The suite must
// pass with it, which shows that the suite is set up rightly; and its calls are what ours are compared with.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/containerd/snapshots/overlay"
	"google.golang.org/grpc"
)

var _ = diffapi.NewDiffClient

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: overlayfs ROOT SOCKET")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "overlayfs:", err)
		os.Exit(1)
	}
}

func serve(root, socket string) error {
	snapshotter, err := overlay.NewSnapshotter(root)
	if err != nil {
		return err
	}
	defer snapshotter.Close()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ends
		server.Stop()
	}()
	return server.Serve(listener)
}
