package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/klog/v2"
	streamhttp "k8s.io/streaming/pkg/httpstream"
)

// forward is a run of port-forward.
type forward struct {
	*common
	port        int
	connections int
	send        string
	repeat      int
}

// forwardResult is what is printed of one.
type forwardResult struct {
	// Error is why nothing could be forwarded at all.
	Error string `json:"error"`
	// Told is what the server said of failed connections.
	Told string `json:"told"`
	// Replies are the connections, in their order.
	Replies []reply `json:"replies"`
}

// reply is what came on one connection until the other side closed it.
type reply struct {
	// Text is the beginning.
	Text string `json:"text"`
	// Bytes is how much came.
	Bytes int `json:"bytes"`
	// Sum is the SHA-256 of all that came.
	Sum string `json:"sum"`
	// Sent is the SHA-256 of all that was sent.
	Sent  string `json:"sent"`
	Error string `json:"error"`
}

func forwardFlags(set *flag.FlagSet, shared *common) func(context.Context) any {
	f := &forward{common: shared}
	set.IntVar(&f.port, "port", 0, "`port` of the pod")
	set.IntVar(&f.connections, "connections", 1, "connections at the same `time`")
	set.StringVar(&f.send, "send", "", "`text` to send on each; %d in it is the connection's number")
	set.IntVar(&f.repeat, "repeat", 1, "send the text so many `times`")
	return f.run
}

func (f *forward) dialer() (streamhttp.Dialer, error) {
	target, err := url.Parse(f.url)
	if err != nil {
		return nil, err
	}
	if f.websocket {
		return portforward.NewSPDYOverWebsocketDialerForStreaming(target, f.config())
	}
	transport, upgrader, err := spdy.RoundTripperFor(f.config())
	if err != nil {
		return nil, err
	}
	return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, "POST", target), nil
}

func (f *forward) run(ctx context.Context) any {
	// The library logs what the server says.
	var told lockedBuffer
	klog.LogToStderr(false)
	klog.SetOutput(&told)
	result := &forwardResult{}
	if err := f.forward(ctx, &told, result); err != nil {
		result.Error = err.Error()
	}
	klog.Flush()
	result.Told = told.String()
	return result
}

func (f *forward) forward(ctx context.Context, told io.Writer, result *forwardResult) error {
	dialer, err := f.dialer()
	if err != nil {
		return err
	}
	stop, ready, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	ports := []string{fmt.Sprintf("0:%d", f.port)}
	forwarder, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, ports, stop, ready, io.Discard, told)
	if err != nil {
		return err
	}
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return fmt.Errorf("forwarding: %v", err)
	case <-ctx.Done():
		return ctx.Err()
	}
	local, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	result.Replies = make([]reply, f.connections)
	var group sync.WaitGroup
	for number := range result.Replies {
		group.Go(func() { result.Replies[number] = f.connect(ctx, local[0].Local, number) })
	}
	group.Wait()
	close(stop)
	return <-ended
}

func (f *forward) connect(ctx context.Context, port uint16, number int) (got reply) {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		got.Error = err.Error()
		return got
	}
	defer connection.Close()
	deadline, _ := ctx.Deadline()
	connection.SetDeadline(deadline.Add(-time.Second))
	payload := []byte(strings.Repeat(strings.ReplaceAll(f.send, "%d", fmt.Sprint(number)), f.repeat))
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(connection, bytes.NewReader(payload))
		if err == nil {
			err = connection.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	all, err := io.ReadAll(connection)
	if err == nil {
		err = <-sent
	}
	if err != nil {
		got.Error = err.Error()
	}
	sum, sum2 := sha256.Sum256(all), sha256.Sum256(payload)
	got.Text, got.Bytes = string(all[:min(len(all), 1024)]), len(all)
	got.Sum, got.Sent = hex.EncodeToString(sum[:]), hex.EncodeToString(sum2[:])
	return got
}

// lockedBuffer is written by the library's tasks.
type lockedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(data)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}
