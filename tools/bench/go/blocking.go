// What blocks or hogs a thread: the twins of ../blocking.cpp.
package main

import (
	"bytes"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// quantile is the value below which part of them lie.
func quantile(values []time.Duration, part float64) float64 {
	slices.Sort(values)
	return float64(values[min(int(part*float64(len(values))), len(values)-1)])
}

// A system call that does nothing, through the scheduler's enter and exit: syscall.Getpid would not
// do, it is a raw one. Op: one call. Raw ones are timed in between:
// what is over them in the median block is what the scheduler takes.
func syscallRegion(b *bench) {
	const block = 500
	var with time.Duration
	var over []time.Duration // of a whole block
	wrong := 0
	pid := uintptr(syscall.Getpid())
	for done := 0; done < b.n; done += block {
		some := min(block, b.n-done)
		t0 := time.Now()
		for range some {
			if got, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0); got != pid {
				wrong++
			}
		}
		t1 := time.Now()
		for range some {
			if got, _, _ := syscall.Syscall(syscall.SYS_GETPID, 0, 0, 0); got != pid {
				wrong++
			}
		}
		t2 := time.Now()
		with += t2.Sub(t1)
		if some == block {
			over = append(over, t2.Sub(t1)-t1.Sub(t0))
		}
	}
	b.elapsed = with
	if len(over) > 0 {
		b.report(quantile(over, 0.5)/block, "over-ns/op")
	}
	b.check(wrong == 0, "%d calls told another pid", wrong)
}

// 16 goroutines in calls that block for that long. Op: one call.
func block(b *bench, length time.Duration) {
	const callers = 16
	var wg sync.WaitGroup
	var done, failed atomic.Int64
	b.start()
	for g := range callers {
		wg.Go(func() {
			for range share(b.n, callers, g) {
				t := syscall.NsecToTimespec(int64(length))
				err := syscall.Nanosleep(&t, &t) // a syscall.Syscall
				for err == syscall.EINTR {       // the scheduler signals its threads
					err = syscall.Nanosleep(&t, &t)
				}
				if err == nil {
					done.Add(1)
				} else {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	b.stop()
	b.report(float64(b.n)/b.elapsed.Seconds(), "calls/s")
	b.check(done.Load() == int64(b.n) && failed.Load() == 0, "%d calls, want %d", done.Load(), b.n)
}

// Eight that compute beside eight in calls of 100 us. How much they compute is known beforehand: a goroutine cannot read the clock
// of its thread, which may change. Op: a microsecond of computing.
func blockBeside(b *bench) {
	const each = 8
	const work = 300 * time.Millisecond
	const steps = 10_000
	chunk := func(x uint64) uint64 {
		for range steps {
			x = x*6364136223846793005 + 1442695040888963407
		}
		return x
	}
	var sum atomic.Uint64
	took := time.Hour // a chunk, undisturbed
	for range 200 {
		t := time.Now()
		sum.Add(chunk(1))
		took = min(took, time.Since(t))
	}
	chunks := int(work / took)
	var stop atomic.Bool
	calls := make([]int, each)
	var computing, blocking sync.WaitGroup
	b.start()
	began := time.Now()
	for g := range each {
		blocking.Go(func() {
			for !stop.Load() {
				t := syscall.NsecToTimespec(100_000)
				syscall.Nanosleep(&t, nil)
				calls[g]++
			}
		})
		computing.Go(func() {
			x := uint64(1)
			for range chunks {
				x = chunk(x)
			}
			sum.Add(x)
		})
	}
	computing.Wait()
	wall := time.Since(began)
	stop.Store(true)
	blocking.Wait()
	b.stop()
	cpus := min(runtime.GOMAXPROCS(0), runtime.NumCPU())
	computed := time.Duration(each*chunks) * took
	b.elapsed = time.Duration(int(wall) / int(computed/1000) * cpus * b.n)
	b.report(float64(wall)/float64(max(slices.Min(calls), 1)), "call-ns")
	b.check(slices.Min(calls) > 0, "one that blocks made no call")
	b.check(sum.Load() != 0, "nothing was computed")
}

// A hog ends when it is told to, and when it has kept the sleeper from waking for this long.
const hogLimit = 2 * time.Second

var origin = time.Now()

type hogState struct {
	stop   atomic.Bool
	gaveUp atomic.Bool
	woke   atomic.Int64 // since origin
	sum    atomic.Uint64
}

func (h *hogState) over() bool {
	if h.stop.Load() {
		return true
	}
	if time.Since(origin)-time.Duration(h.woke.Load()) < hogLimit {
		return false
	}
	h.gaveUp.Store(true)
	return true
}

func loopHog(h *hogState) {
	x := uint64(1)
	for !h.over() {
		for range 1_000_000 {
			x = x*6364136223846793005 + 1442695040888963407
		}
	}
	h.sum.Add(x)
}

// What libc's strlen is to a C++ program.
func strlenHog(h *hogState) {
	text := append(bytes.Repeat([]byte{'x'}, 16<<20), 0)
	for !h.over() {
		h.sum.Add(uint64(bytes.IndexByte(text, 0)))
	}
}

var sink atomic.Pointer[[]byte]

func mallocHog(h *hogState) {
	for !h.over() {
		for i := range 20_000 {
			p := make([]byte, 16+i%1000)
			sink.Store(&p)
			h.sum.Add(1)
		}
	}
}

func regexHog(h *hogState) {
	re := regexp.MustCompile("([a-z]+)([0-9]+)-(x|y)*z")
	text := string(bytes.Repeat([]byte{'q'}, 500))
	for !h.over() {
		for range 4 {
			if re.MatchString(text) {
				h.sum.Add(1)
			}
		}
	}
}

// Somebody who sleeps for 1 ms again and again beside k hogs. ns/op: how late half of the sleeps are
// at most.
func hogs(b *bench, k int, hog func(*hogState)) {
	h := &hogState{}
	h.woke.Store(int64(time.Since(origin)))
	var wg sync.WaitGroup
	for range k {
		wg.Go(func() { hog(h) })
	}
	var late []time.Duration
	early := 0
	for range b.n {
		before := time.Now()
		time.Sleep(time.Millisecond)
		h.woke.Store(int64(time.Since(origin)))
		late = append(late, time.Since(before)-time.Millisecond)
		if late[len(late)-1] < 0 {
			early++
		}
	}
	h.stop.Store(true)
	wg.Wait()
	first := float64(late[0])
	if h.gaveUp.Load() { // what came after it was beside nobody
		for i := range late {
			late[i] = hogLimit
		}
	}
	p50 := quantile(late, 0.50)
	b.elapsed = time.Duration(int(p50) * b.n)
	b.report(quantile(late, 0.99), "p99-ns")
	b.report(first, "first-ns")
	b.check(early == 0, "%d sleeps were short", early)
}

// The number of Ps changes, for which all of them have to stop, while 10,000 goroutines are parked
// and as many as there are Ps compute. ns/op: what half of the changes take at most.
func stopWorld(b *bench) {
	const parkedGs = 10_000
	usual := runtime.GOMAXPROCS(0)
	gate := make(chan struct{})
	var stop atomic.Bool
	var sum atomic.Uint64
	var parked, all sync.WaitGroup
	parked.Add(parkedGs)
	for range parkedGs {
		all.Go(func() {
			parked.Done()
			<-gate
		})
	}
	parked.Wait()
	for range usual {
		all.Go(func() {
			x := uint64(1)
			for !stop.Load() {
				for range 5_000 {
					x = x*6364136223846793005 + 1442695040888963407
				}
			}
			sum.Add(x)
		})
	}
	var took []time.Duration
	wrong := 0
	for i := range b.n {
		from, to := usual+i%2, usual+(i+1)%2
		before := time.Now()
		if runtime.GOMAXPROCS(to) != from {
			wrong++
		}
		took = append(took, time.Since(before))
		runtime.Gosched()
	}
	runtime.GOMAXPROCS(usual)
	stop.Store(true)
	close(gate)
	all.Wait()
	b.elapsed = time.Duration(int(quantile(took, 0.50)) * b.n)
	b.report(quantile(took, 0.99), "p99-ns")
	b.check(wrong == 0, "%d changes told another number than the one before set", wrong)
}

// What in Go stops the world at any instruction: reading the memory statistics, which takes little more.
func freezeWorld(b *bench) {
	const parkedGs, hogs = 10_000, 4
	gate := make(chan struct{})
	var stop atomic.Bool
	var sink [hogs]*[256]byte
	var parked, all sync.WaitGroup
	parked.Add(parkedGs)
	for range parkedGs {
		all.Go(func() {
			parked.Done()
			<-gate
		})
	}
	parked.Wait()
	for i := range hogs {
		all.Go(func() {
			for !stop.Load() {
				sink[i] = new([256]byte)
			}
		})
	}
	var took []time.Duration
	var stats runtime.MemStats
	time.Sleep(30 * time.Millisecond)
	for range b.n {
		before := time.Now()
		runtime.ReadMemStats(&stats)
		took = append(took, time.Since(before))
		time.Sleep(500 * time.Microsecond)
	}
	stop.Store(true)
	close(gate)
	all.Wait()
	b.elapsed = time.Duration(int(quantile(took, 0.50)) * b.n)
	b.report(quantile(took, 0.99), "p99-ns")
	b.check(stats.NumGC > 0, "nothing was collected")
}
