// The workloads of ../sync.cpp. ErrGroup and Semaphore are golang.org/x/sync's, written out: this
// program has no dependencies.
package main

import (
	"container/list"
	"context"
	"sync"
)

// Nobody else wants the lock. Op: lock and unlock.
func mutex1(b *bench) {
	var mu sync.Mutex
	count := 0
	b.start()
	for range b.n {
		mu.Lock()
		count++
		mu.Unlock()
	}
	b.stop()
	b.check(count == b.n, "count %d, want %d", count, b.n)
}

// Eight readers of one lock. Op: read lock and unlock.
func rwRead(b *bench) {
	var mu sync.RWMutex
	var wg sync.WaitGroup
	shared := 1
	var sum [8]int
	b.start()
	for i := range 8 {
		wg.Go(func() {
			mine := 0
			for range share(b.n, 8, i) {
				mu.RLock()
				mine += shared
				mu.RUnlock()
			}
			sum[i] = mine
		})
	}
	wg.Wait()
	b.stop()
	all := 0
	for _, s := range sum {
		all += s
	}
	b.check(all == b.n, "%d reads, want %d", all, b.n)
}

// Two goroutines that take turns under one Cond. Op: there and back.
func condPingPong(b *bench) {
	var mu sync.Mutex
	cv := sync.NewCond(&mu)
	var wg sync.WaitGroup
	turn := 0
	b.start()
	for me := range 2 {
		wg.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for range b.n {
				for turn%2 != me {
					cv.Wait()
				}
				turn++
				cv.Signal()
			}
		})
	}
	wg.Wait()
	b.stop()
	b.check(turn == 2*b.n, "%d turns, want %d", turn, 2*b.n)
}

// A thousand goroutines, started and waited for. Op: all of them.
func forkJoin(b *bench) {
	const width = 1000
	ran := make([]int, width)
	b.start()
	for range b.n {
		var wg sync.WaitGroup
		for i := range ran {
			wg.Go(func() { ran[i]++ })
		}
		wg.Wait()
	}
	b.stop()
	for _, times := range ran {
		b.check(times == b.n, "a goroutine ran %d times, want %d", times, b.n)
	}
}

// A Once that is done. Op: one call.
func onceFast(b *bench) {
	var once sync.Once
	ran := 0
	f := func() { ran++ }
	once.Do(f)
	b.start()
	for range b.n {
		once.Do(f)
	}
	b.stop()
	b.check(ran == 1, "the function ran %d times", ran)
}

// Children of one context, made and then ended by its cancel. Op: one child.
func contextCancel(b *bench) {
	type child struct {
		ctx    context.Context
		cancel context.CancelFunc
	}
	children := make([]child, 0, b.n)
	b.start()
	root, cancel := context.WithCancel(context.Background())
	for range b.n {
		c, f := context.WithCancel(root)
		children = append(children, child{c, f})
	}
	cancel()
	b.stop()
	for _, c := range children {
		b.check(c.ctx.Err() == context.Canceled, "a child is not done")
	}
}

type errGroup struct {
	cancel func(error)
	wg     sync.WaitGroup
	once   sync.Once
	err    error
}

func (g *errGroup) run(f func() error) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		if err := f(); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel(err)
			})
		}
	}()
}

func (g *errGroup) wait() error {
	g.wg.Wait()
	g.cancel(g.err)
	return g.err
}

// Functions of one errgroup. Op: one function.
func runErrGroup(b *bench) {
	ran := make([]byte, b.n)
	b.start()
	_, cancel := context.WithCancelCause(context.Background())
	g := &errGroup{cancel: cancel}
	for i := range b.n {
		g.run(func() error {
			ran[i]++
			return nil
		})
	}
	err := g.wait()
	b.stop()
	b.check(err == nil, "an error came from nowhere")
	for _, times := range ran {
		b.check(times == 1, "a function ran %d times", times)
	}
}

type waiter struct {
	n     int64
	ready chan struct{}
}

type weighted struct {
	size    int64
	cur     int64
	mu      sync.Mutex
	waiters list.List
}

func (s *weighted) acquire(ctx context.Context, n int64) error {
	done := ctx.Done()
	s.mu.Lock()
	select {
	case <-done:
		s.mu.Unlock()
		return ctx.Err()
	default:
	}
	if s.size-s.cur >= n && s.waiters.Len() == 0 {
		s.cur += n
		s.mu.Unlock()
		return nil
	}
	ready := make(chan struct{})
	elem := s.waiters.PushBack(waiter{n, ready})
	s.mu.Unlock()
	select {
	case <-done:
		s.mu.Lock()
		s.waiters.Remove(elem)
		s.mu.Unlock()
		return ctx.Err()
	case <-ready:
		return nil
	}
}

func (s *weighted) release(n int64) {
	s.mu.Lock()
	s.cur -= n
	for {
		next := s.waiters.Front()
		if next == nil {
			break
		}
		w := next.Value.(waiter)
		if s.size-s.cur < w.n {
			break
		}
		s.cur += w.n
		s.waiters.Remove(next)
		close(w.ready)
	}
	s.mu.Unlock()
}

// Eight goroutines, four permits. Op: acquire and release one.
func semaphore8(b *bench) {
	sem := &weighted{size: 4}
	var wg sync.WaitGroup
	var done [8]int
	b.start()
	for i := range 8 {
		wg.Go(func() {
			count := 0
			for range share(b.n, 8, i) {
				_ = sem.acquire(context.Background(), 1)
				count++
				sem.release(1)
			}
			done[i] = count
		})
	}
	wg.Wait()
	b.stop()
	all := 0
	for _, d := range done {
		all += d
	}
	b.check(all == b.n && sem.cur == 0, "%d turns, want %d", all, b.n)
}
