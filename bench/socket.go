package main

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	echoConns = 100
	echoEach  = 200
)

// echo sends 1 KiB messages back and forth on 100 connections and returns
// messages per second.
func echo(ctx context.Context, t *target, host string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	header := http.Header{}
	for _, h := range t.headers {
		name, value, _ := strings.Cut(h, ": ")
		if name != "Host" {
			header.Set(name, value)
		}
	}
	opts := &websocket.DialOptions{HTTPHeader: header, CompressionMode: websocket.CompressionDisabled}
	if len(t.headers) > 0 {
		opts.Host = host
		header.Set("Origin", "http://"+host)
	}
	opts.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, t.addr)
	}}}
	conns := make([]*websocket.Conn, echoConns)
	for i := range conns {
		c, _, err := websocket.Dial(ctx, "ws://"+t.addr+t.ws, opts)
		if err != nil {
			return 0, err
		}
		defer c.CloseNow()
		conns[i] = c
	}
	msg := make([]byte, 1024)
	rand.Read(msg)
	errs := make(chan error, echoConns)
	var wg sync.WaitGroup
	began := time.Now()
	for _, c := range conns {
		wg.Go(func() {
			for range echoEach {
				if err := c.Write(ctx, websocket.MessageBinary, msg); err != nil {
					errs <- err
					return
				}
				if _, _, err := c.Read(ctx); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	select {
	case err := <-errs:
		return 0, err
	default:
		return float64(echoConns*echoEach) / took.Seconds(), nil
	}
}
