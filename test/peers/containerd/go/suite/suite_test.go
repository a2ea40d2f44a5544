// Runs containerd's own snapshotter suite against a snapshots service on a Unix socket.
//
// SNAPSHOTTER_COMMAND is a program that is called as `PROGRAM ROOT SOCKET` and serves the snapshots service there until
// it is told to end. Every test gets a process and a root of its own: the tests use the same keys.
package suite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/pkg/testutil"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
)

const patience = 60 * time.Second

func TestSnapshotter(t *testing.T) {
	testutil.RequiresRoot(t)
	command := os.Getenv("SNAPSHOTTER_COMMAND")
	if command == "" {
		t.Fatal("SNAPSHOTTER_COMMAND names no program")
	}
	testsuite.SnapshotterSuite(t, "proxied", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		return serve(ctx, command, root)
	})
}

// serve starts the service and gives a client of it, and what ends both.
func serve(ctx context.Context, command, root string) (snapshots.Snapshotter, func() error, error) {
	// Beside the root: a service may look at everything in its root.
	socket := filepath.Join(filepath.Dir(root), "s.sock")
	server := exec.Command(command, root, socket)
	server.Stdout = os.Stderr
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	stop := func() error {
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			_ = server.Process.Kill()
			<-ended
			return fmt.Errorf("the service did not end within %s of SIGTERM", patience)
		}
	}

	dial, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	connection, err := grpc.DialContext(dial, "unix://"+socket, grpc.WithInsecure(), grpc.WithBlock())
	if err != nil {
		_ = stop()
		return nil, nil, fmt.Errorf("no service on %s: %w", socket, err)
	}
	snapshotter := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "proxied")
	return snapshotter, func() error {
		_ = connection.Close()
		return stop()
	}, nil
}
