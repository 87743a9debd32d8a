package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
)

// Whoever was let in is answered, also in the moment in which another process
// takes the listener over.
func TestNobodyIsDropped(t *testing.T) {
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	held, err := handOver(first)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	first.Close()
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	stop := make(chan struct{})
	var visitors sync.WaitGroup
	for range 4 {
		visitors.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, err := client.Get("http://" + first.Addr().String() + "/")
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
	for range 200 {
		l, err := net.FileListener(held)
		if err != nil {
			t.Fatal(err)
		}
		ctx, drain := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { front{l: l, h: hello}.serve(ctx, slog.New(slog.DiscardHandler)); close(ended) }()
		res, err := http.Get("http://" + first.Addr().String() + "/")
		if err != nil {
			t.Error(err)
		} else {
			res.Body.Close()
		}
		drain()
		<-ended
	}
	l, err := net.FileListener(held)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { front{l: l, h: hello}.serve(ctx, slog.New(slog.DiscardHandler)); close(ended) }()
	close(stop)
	visitors.Wait()
	end()
	<-ended
}
