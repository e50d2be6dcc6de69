// The Go end of the ttrpc interoperability tests: "peer serve SOCKET" serves the test service until its stdin ends,
// "peer call SOCKET" calls it and exits with an error at the first answer that is not the expected one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const service = "kevel.test.Echo"

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: peer serve|call SOCKET"))
	}
	switch os.Args[1] {
	case "serve":
		fail(serve(os.Args[2]))
	case "call":
		fail(call(os.Args[2]))
	default:
		fail(fmt.Errorf("unknown action %q", os.Args[1]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func serve(socket string) error {
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		return err
	}
	server.RegisterService(service, &ttrpc.ServiceDesc{Methods: methods(), Streams: streams()})
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Close()
	}()
	fmt.Println("ready")
	if err := server.Serve(context.Background(), listener); !errors.Is(err, ttrpc.ErrServerClosed) {
		return err
	}
	return nil
}

// unary makes a method from a function on typed messages.
func unary[Req any, P interface {
	*Req
	proto.Message
}](handle func(context.Context, P) (proto.Message, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		request := P(new(Req))
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		return handle(ctx, request)
	}
}

func methods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"Echo": unary(func(_ context.Context, b *wrapperspb.BytesValue) (proto.Message, error) { return b, nil }),
		"Fail": unary(func(_ context.Context, s *wrapperspb.StringValue) (proto.Message, error) {
			return nil, status.Error(codes.NotFound, s.Value)
		}),
		"Meta": unary(func(ctx context.Context, s *wrapperspb.StringValue) (proto.Message, error) {
			value, ok := ttrpc.GetMetadataValue(ctx, s.Value)
			if !ok {
				value = "absent"
			}
			return wrapperspb.String(value), nil
		}),
		"HasDeadline": unary(func(ctx context.Context, _ *wrapperspb.StringValue) (proto.Message, error) {
			if _, ok := ctx.Deadline(); ok {
				return wrapperspb.String("yes"), nil
			}
			return wrapperspb.String("no"), nil
		}),
		"Hang": unary(func(ctx context.Context, _ *wrapperspb.StringValue) (proto.Message, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
	}
}

func streams() map[string]ttrpc.Stream {
	return map[string]ttrpc.Stream{
		"Count": {StreamingServer: true, Handler: func(_ context.Context, s ttrpc.StreamServer) (any, error) {
			var upto wrapperspb.UInt64Value
			if err := s.RecvMsg(&upto); err != nil {
				return nil, err
			}
			for value := uint64(1); value <= upto.Value; value++ {
				if err := s.SendMsg(wrapperspb.UInt64(value)); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}},
		"Sum": {StreamingClient: true, Handler: func(_ context.Context, s ttrpc.StreamServer) (any, error) {
			sum := uint64(0)
			for {
				var value wrapperspb.UInt64Value
				err := s.RecvMsg(&value)
				if errors.Is(err, io.EOF) {
					return wrapperspb.UInt64(sum), nil
				} else if err != nil {
					return nil, err
				}
				sum += value.Value
			}
		}},
		"Chat": {StreamingClient: true, StreamingServer: true, Handler: func(_ context.Context, s ttrpc.StreamServer) (any, error) {
			for {
				var line wrapperspb.StringValue
				err := s.RecvMsg(&line)
				if errors.Is(err, io.EOF) {
					return nil, nil
				} else if err != nil {
					return nil, err
				}
				if line.Value == "quit" {
					return nil, status.Error(codes.Aborted, "told to quit")
				}
				if err := s.SendMsg(wrapperspb.String(strings.ToUpper(line.Value))); err != nil {
					return nil, err
				}
			}
		}},
	}
}

func call(socket string) error {
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(connection)
	defer client.Close()
	checks := []struct {
		name  string
		check func(context.Context, *ttrpc.Client) error
	}{
		{"echo", callEcho}, {"errors", callErrors}, {"metadata", callMetadata}, {"deadline", callDeadline},
		{"count", callCount}, {"sum", callSum}, {"chat", callChat}, {"concurrent", callConcurrent},
	}
	for _, c := range checks {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := c.check(ctx, client)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Println("ok", c.name)
	}
	return nil
}

func callEcho(ctx context.Context, client *ttrpc.Client) error {
	for _, length := range []int{0, 1, 5000, 4<<20 - 1000} {
		var answer wrapperspb.BytesValue
		if err := client.Call(ctx, service, "Echo", wrapperspb.Bytes(make([]byte, length)), &answer); err != nil {
			return err
		}
		if len(answer.Value) != length {
			return fmt.Errorf("sent %d bytes, received %d", length, len(answer.Value))
		}
	}
	return nil
}

func expectCode(err error, code codes.Code) error {
	if status.Code(err) != code {
		return fmt.Errorf("expected %v, received %v", code, err)
	}
	return nil
}

func callErrors(ctx context.Context, client *ttrpc.Client) error {
	var answer wrapperspb.StringValue
	request := wrapperspb.String("why")
	err := client.Call(ctx, service, "Fail", request, &answer)
	if status.Code(err) != codes.NotFound || status.Convert(err).Message() != "why" {
		return fmt.Errorf("expected NotFound why, received %v", err)
	}
	return errors.Join(
		expectCode(client.Call(ctx, service, "Missing", request, &answer), codes.Unimplemented),
		expectCode(client.Call(ctx, "kevel.test.Other", "Echo", request, &answer), codes.Unimplemented),
		expectCode(client.Call(ctx, service, "Panic", request, &answer), codes.Internal),
		expectCode(client.Call(ctx, service, "Grow", wrapperspb.UInt64(4<<20), &answer), codes.ResourceExhausted),
	)
}

func callMetadata(ctx context.Context, client *ttrpc.Client) error {
	metadata := ttrpc.MD{}
	metadata.Set("containerd-namespace-ttrpc", "k8s.io")
	var answer wrapperspb.StringValue
	request := wrapperspb.String("containerd-namespace-ttrpc")
	if err := client.Call(ttrpc.WithMetadata(ctx, metadata), service, "Meta", request, &answer); err != nil {
		return err
	}
	if answer.Value != "k8s.io" {
		return fmt.Errorf("metadata arrived as %q", answer.Value)
	}
	return nil
}

func callDeadline(ctx context.Context, client *ttrpc.Client) error {
	var answer wrapperspb.StringValue
	if err := client.Call(ctx, service, "HasDeadline", wrapperspb.String(""), &answer); err != nil {
		return err
	}
	if answer.Value != "yes" {
		return errors.New("the deadline did not arrive")
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	err := client.Call(short, service, "Hang", wrapperspb.String(""), &answer)
	if !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
		return fmt.Errorf("expected a deadline, received %v", err)
	}
	return nil
}

func callCount(ctx context.Context, client *ttrpc.Client) error {
	stream, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingServer: true}, service, "Count", wrapperspb.UInt64(500))
	if err != nil {
		return err
	}
	for expected := uint64(1); ; expected++ {
		var value wrapperspb.UInt64Value
		err := stream.RecvMsg(&value)
		if errors.Is(err, io.EOF) && expected == 501 {
			return nil
		}
		if err != nil || value.Value != expected {
			return fmt.Errorf("expected %d, received %d, %v", expected, value.Value, err)
		}
	}
}

func callSum(ctx context.Context, client *ttrpc.Client) error {
	stream, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true}, service, "Sum", nil)
	if err != nil {
		return err
	}
	for value := uint64(1); value <= 500; value++ {
		if err := stream.SendMsg(wrapperspb.UInt64(value)); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var sum wrapperspb.UInt64Value
	if err := stream.RecvMsg(&sum); err != nil || sum.Value != 125250 {
		return fmt.Errorf("received %d, %v", sum.Value, err)
	}
	return nil
}

func callChat(ctx context.Context, client *ttrpc.Client) error {
	both := &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}
	stream, err := client.NewStream(ctx, both, service, "Chat", nil)
	if err != nil {
		return err
	}
	var answer wrapperspb.StringValue
	for _, line := range []string{"a", "", "b"} {
		if err := stream.SendMsg(wrapperspb.String(line)); err != nil {
			return err
		}
		if err := stream.RecvMsg(&answer); err != nil || answer.Value != strings.ToUpper(line) {
			return fmt.Errorf("sent %q, received %q, %v", line, answer.Value, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := stream.RecvMsg(&answer); !errors.Is(err, io.EOF) {
		return fmt.Errorf("expected the end, received %v", err)
	}
	if stream, err = client.NewStream(ctx, both, service, "Chat", nil); err != nil {
		return err
	}
	if err := stream.SendMsg(wrapperspb.String("quit")); err != nil {
		return err
	}
	return expectCode(stream.RecvMsg(&answer), codes.Aborted)
}

func callConcurrent(ctx context.Context, client *ttrpc.Client) error {
	results := make(chan error)
	for length := range 200 {
		go func() {
			var answer wrapperspb.BytesValue
			err := client.Call(ctx, service, "Echo", wrapperspb.Bytes(make([]byte, length)), &answer)
			if err == nil && len(answer.Value) != length {
				err = fmt.Errorf("sent %d bytes, received %d", length, len(answer.Value))
			}
			results <- err
		}()
	}
	var all error
	for range 200 {
		all = errors.Join(all, <-results)
	}
	return all
}
