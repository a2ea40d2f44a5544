// Measures a snapshots service: `calls SOCKET` prints one JSON object of microseconds a call, as containerd's own client sees
// them. The service is best on a fresh root.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"google.golang.org/grpc"
)

const (
	reads    = 2000
	writes   = 200
	inFlight = 1000
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: calls SOCKET")
		os.Exit(2)
	}
	results, err := measure(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "calls:", err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(results)
}

func measure(socket string) (map[string]float64, error) {
	connection, err := grpc.Dial("unix://"+socket, grpc.WithInsecure(), grpc.WithBlock())
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	sn := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "calls")
	ctx := namespaces.WithNamespace(context.Background(), "calls")
	// The label keeps what a collector would take.
	keep := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "now"})
	if _, err := sn.Prepare(ctx, "calls/1/base-active", "", keep); err != nil {
		return nil, err
	}
	if err := sn.Commit(ctx, "calls/2/base", "calls/1/base-active", keep); err != nil {
		return nil, err
	}
	if _, err := sn.Prepare(ctx, "calls/3/box", "calls/2/base", keep); err != nil {
		return nil, err
	}
	stat := func(int) error { _, err := sn.Stat(ctx, "calls/2/base"); return err }
	mounts := func(int) error { _, err := sn.Mounts(ctx, "calls/3/box"); return err }
	pair := func(n int) error {
		key := fmt.Sprintf("calls/%d/pair", 10+n)
		if _, err := sn.Prepare(ctx, key, "calls/2/base", keep); err != nil {
			return err
		}
		return sn.Remove(ctx, key)
	}
	results := map[string]float64{}
	for _, each := range []struct {
		name     string
		count    int
		parallel int
		call     func(int) error
	}{
		{"warm-up", reads, 16, stat},
		{"stat", reads, 1, stat},
		{"stat, 16 in flight", reads, 16, stat},
		{"mounts", reads, 1, mounts},
		{"prepare and remove", writes, 1, pair},
		{"prepare and remove, 1000 in flight", inFlight, inFlight, pair},
	} {
		took, err := run(each.count, each.parallel, each.call)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", each.name, err)
		}
		results[each.name] = float64(took.Microseconds()) / float64(each.count)
	}
	delete(results, "warm-up")
	return results, nil
}

// run makes `count` calls, `parallel` at once, and says how long all of them took.
func run(count, parallel int, call func(int) error) (time.Duration, error) {
	numbers := make(chan int, count)
	for n := 0; n < count; n++ {
		numbers <- n
	}
	close(numbers)
	failures := make(chan error, parallel)
	var wait sync.WaitGroup
	began := time.Now()
	for worker := 0; worker < parallel; worker++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for n := range numbers {
				if err := call(n); err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	wait.Wait()
	took := time.Since(began)
	select {
	case err := <-failures:
		return took, err
	default:
		return took, nil
	}
}
