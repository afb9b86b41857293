// The workloads of weft-bench as Go programs. Each checks its result: a sum, a count or an
// order that a lost, doubled or reordered operation would change.
package main

import (
	"math/rand"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

var workloads = []workload{
	{"Yield", 0, yield},
	{"Spawn", 2_000_000, spawn},
	{"SpawnJoin", 0, spawnJoin},
	{"PingPong", 0, pingPong},
	{"PingPongTimer", 0, pingPongTimer},
	{"ScopePingPong", 0, pingPong}, // Go has no scopes
	{"Stream0", 0, func(b *bench) { stream(b, 0) }},
	{"Stream128", 0, func(b *bench) { stream(b, 128) }},
	{"MPMC", 0, mpmc},
	{"Select4", 0, select4},
	{"SelectTimeout", 0, selectTimeout},
	{"Skynet", 1_000_000, skynet},
	{"Ring", 0, ring},
	{"Sieve", 0, sieve},
	{"Mutex1", 0, mutex1},
	{"Mutex8", 0, mutex8},
	{"RwRead", 0, rwRead},
	{"CondPingPong", 0, condPingPong},
	{"ForkJoin", 0, forkJoin},
	{"OnceFast", 0, onceFast},
	{"ContextCancel", 200_000, contextCancel},
	{"ErrGroup", 100_000, runErrGroup},
	{"Semaphore8", 0, semaphore8},
	{"Sleepers", 100_000, sleepers},
	{"StartPark", 100_000, startPark},
	{"TimerStop", 0, timerStop},
	{"Syscall", 0, syscallRegion},
	{"Block50us", 0, func(b *bench) { block(b, 50*time.Microsecond) }},
	{"Block200us", 0, func(b *bench) { block(b, 200*time.Microsecond) }},
	{"Block900us", 0, func(b *bench) { block(b, 900*time.Microsecond) }},
	{"BlockBeside", 1, blockBeside},
	{"HogsLoop1", 300, func(b *bench) { hogs(b, 1, loopHog) }},
	{"HogsLoop8", 300, func(b *bench) { hogs(b, 8, loopHog) }},
	{"HogsStrlen1", 300, func(b *bench) { hogs(b, 1, strlenHog) }},
	{"HogsStrlen8", 300, func(b *bench) { hogs(b, 8, strlenHog) }},
	{"HogsMalloc1", 300, func(b *bench) { hogs(b, 1, mallocHog) }},
	{"HogsMalloc8", 300, func(b *bench) { hogs(b, 8, mallocHog) }},
	{"HogsRegex1", 300, func(b *bench) { hogs(b, 1, regexHog) }},
	{"HogsRegex8", 300, func(b *bench) { hogs(b, 8, regexHog) }},
	{"StopWorld", 500, stopWorld},
	{"FreezeWorld", 500, freezeWorld},
	{"Fib", 2*317_811 - 1, fib27}, // calls of fib(27): 2 F(28) - 1
	{"RandomWake", 1_000_000, randomWake},
	{"RandomWakeCopyable", 1_000_000, randomWake},
	{"RandomRing", 1_000_000, randomRing},
	{"RandomRingCopyable", 1_000_000, randomRing},
	{"Parked", 1_000_000, parked},
	{"ParkedCopyable", 1_000_000, parked},
	{"ParkedHibernated", 1_000_000, parked},
	{"SleepersPeakCopyable", 1_000_000, sleepersPeak},
	{"SleepersPeakHibernated", 1_000_000, sleepersPeak},
}

// share is what worker i of k does of n operations.
func share(n, k, i int) int {
	s := n / k
	if i < n%k {
		s++
	}
	return s
}

// Two goroutines that only yield. Op: one yield.
func yield(b *bench) {
	var wg sync.WaitGroup
	var done [2]int
	b.start()
	for i := range 2 {
		wg.Go(func() {
			count := 0
			for range share(b.n, 2, i) {
				runtime.Gosched()
				count++
			}
			done[i] = count
		})
	}
	wg.Wait()
	b.stop()
	b.check(done[0]+done[1] == b.n, "%d yields, want %d", done[0]+done[1], b.n)
}

// All goroutines are started before the first is waited for. Op: one goroutine.
func spawn(b *bench) {
	ran := make([]byte, b.n)
	var wg sync.WaitGroup
	b.start()
	for i := range b.n {
		wg.Go(func() { ran[i]++ })
	}
	wg.Wait()
	b.stop()
	for i, times := range ran {
		b.check(times == 1, "goroutine %d ran %d times", i, times)
	}
}

// One goroutine at a time. Op: start it and wait for its end.
func spawnJoin(b *bench) {
	ran := 0
	var wg sync.WaitGroup
	b.start()
	for range b.n {
		wg.Go(func() { ran++ })
		wg.Wait()
	}
	b.stop()
	b.check(ran == b.n, "%d goroutines ran, want %d", ran, b.n)
}

// Two goroutines, two unbuffered channels. Op: there and back.
func pingPong(b *bench) {
	ping, pong := make(chan int), make(chan int)
	var wg sync.WaitGroup
	wg.Go(func() {
		for v := range ping {
			pong <- v + 1
		}
	})
	wrong := 0
	b.start()
	for i := range b.n {
		ping <- i
		if v := <-pong; v != i+1 {
			wrong++
		}
	}
	b.stop()
	close(ping)
	wg.Wait()
	b.check(wrong == 0, "%d of %d answers wrong", wrong, b.n)
}

// PingPong while a timer is pending, as in a program with timeouts. Op: there and back.
func pingPongTimer(b *bench) {
	var fired atomic.Bool
	t := time.AfterFunc(time.Hour, func() { fired.Store(true) })
	pingPong(b)
	b.check(t.Stop() && !fired.Load(), "the pending timer was lost")
}

// One producer, one consumer. Op: one value.
func stream(b *bench, slots int) {
	c := make(chan int, slots)
	b.start()
	go func() {
		for i := range b.n {
			c <- i
		}
		close(c)
	}()
	next, wrong := 0, 0
	for v := range c {
		if v != next {
			wrong++
		}
		next++
	}
	b.stop()
	b.check(next == b.n && wrong == 0, "%d of %d values, %d out of order", next, b.n, wrong)
}

// Eight producers, eight consumers, 128 slots. Op: one value.
func mpmc(b *bench) {
	c := make(chan int, 128)
	var producers, consumers sync.WaitGroup
	var sum, count atomic.Int64
	b.start()
	for i := range 8 {
		producers.Go(func() {
			for v := range share(b.n, 8, i) {
				c <- v
			}
		})
		consumers.Go(func() {
			var mySum, myCount int64
			for v := range c {
				mySum += int64(v)
				myCount++
			}
			sum.Add(mySum)
			count.Add(myCount)
		})
	}
	producers.Wait()
	close(c)
	consumers.Wait()
	b.stop()
	var want int64
	for i := range 8 {
		s := int64(share(b.n, 8, i))
		want += s * (s - 1) / 2
	}
	b.check(count.Load() == int64(b.n), "%d values, want %d", count.Load(), b.n)
	b.check(sum.Load() == want, "sum %d, want %d", sum.Load(), want)
}

// Four producers on unbuffered channels of their own, one consumer. Op: one select.
func select4(b *bench) {
	var c [4]chan int
	for i := range c {
		c[i] = make(chan int)
	}
	b.start()
	for i := range c {
		go func() {
			for v := range share(b.n, 4, i) {
				c[i] <- v
			}
		}()
	}
	var next [4]int
	wrong := 0
	for range b.n {
		var v, i int
		select {
		case v = <-c[0]:
			i = 0
		case v = <-c[1]:
			i = 1
		case v = <-c[2]:
			i = 2
		case v = <-c[3]:
			i = 3
		}
		if v != next[i] {
			wrong++
		}
		next[i]++
	}
	b.stop()
	b.check(wrong == 0, "%d values out of order", wrong)
	for i := range c {
		b.check(next[i] == share(b.n, 4, i), "%d values from channel %d, want %d", next[i], i,
			share(b.n, 4, i))
	}
}

// A request whose answer is awaited with a timeout that never passes. Op: request, arm, answer,
// disarm.
func selectTimeout(b *bench) {
	ask, answer := make(chan int), make(chan int)
	var wg sync.WaitGroup
	wg.Go(func() {
		for v := range ask {
			answer <- v + 1
		}
	})
	wrong, late := 0, 0
	b.start()
	for i := range b.n {
		ask <- i
		t := time.NewTimer(time.Hour)
		select {
		case v := <-answer:
			if v != i+1 {
				wrong++
			}
		case <-t.C:
			late++
		}
		t.Stop()
	}
	b.stop()
	close(ask)
	wg.Wait()
	b.check(wrong == 0 && late == 0, "%d wrong answers, %d timeouts", wrong, late)
}

func skynetNode(out chan<- int, first, size int) {
	if size == 1 {
		out <- first
		return
	}
	c := make(chan int)
	part := size / 10
	for i := range 10 {
		go skynetNode(c, first+i*part, part)
	}
	sum := 0
	for range 10 {
		sum += <-c
	}
	out <- sum
}

// A tree of goroutines, ten children each, that adds up its leaves' numbers. Op: one leaf.
func skynet(b *bench) {
	c := make(chan int)
	b.start()
	go skynetNode(c, 0, b.n)
	sum := <-c
	b.stop()
	want := b.n * (b.n - 1) / 2
	b.check(sum == want, "sum %d, want %d", sum, want)
}

// 503 goroutines pass a token round; it counts down. Op: one hop.
func ring(b *bench) {
	const size = 503
	var c [size]chan int
	for i := range c {
		c[i] = make(chan int)
	}
	last := make(chan int)
	var wg sync.WaitGroup
	for i := range size {
		wg.Go(func() {
			to := c[(i+1)%size]
			for token := range c[i] {
				if token == 0 {
					last <- i
				} else {
					to <- token - 1
				}
			}
		})
	}
	b.start()
	c[0] <- b.n
	at := <-last
	b.stop()
	for i := range c {
		close(c[i])
	}
	wg.Wait()
	b.check(at == b.n%size, "the token ended at %d, want %d", at, b.n%size)
}

// The prime sieve of Hoare's CSP paper: one goroutine per prime. Op: the first 2,000 primes.
func sieve(b *bench) {
	const limit, count = 17_389, 2_000
	b.start()
	for range b.n {
		in := numbers(limit)
		primes, prime := 0, 0
		for {
			p, ok := <-in
			if !ok {
				break
			}
			primes, prime = primes+1, p
			in = filter(in, p)
		}
		b.check(primes == count && prime == limit, "%d primes up to %d", primes, prime)
	}
	b.stop()
	b.report(b.elapsed.Seconds()*1e3/float64(b.n), "ms/op")
}

func numbers(limit int) <-chan int {
	out := make(chan int)
	go func() {
		for i := 2; i <= limit; i++ {
			out <- i
		}
		close(out)
	}()
	return out
}

func filter(in <-chan int, prime int) <-chan int {
	out := make(chan int)
	go func() {
		for i := range in {
			if i%prime != 0 {
				out <- i
			}
		}
		close(out)
	}()
	return out
}

// Eight goroutines and one mutex around an addition. Op: lock and unlock.
func mutex8(b *bench) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	count := 0
	b.start()
	for i := range 8 {
		wg.Go(func() {
			for range share(b.n, 8, i) {
				mu.Lock()
				count++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	b.stop()
	b.check(count == b.n, "count %d, want %d", count, b.n)
}

// Goroutines that each sleep 1-10 ms once. Op: one sleeper. Every 16th checks its watch.
func sleepers(b *bench) {
	var wg sync.WaitGroup
	var awake, early atomic.Int64
	rnd := random(b.seed)
	b.start()
	for i := range b.n {
		d := time.Millisecond + time.Duration(rnd.next()%9_000_000)
		if i%16 != 0 {
			wg.Go(func() {
				time.Sleep(d)
				awake.Add(1)
			})
			continue
		}
		wg.Go(func() {
			began := time.Now()
			time.Sleep(d)
			if time.Since(began) < d {
				early.Add(1)
			}
			awake.Add(1)
		})
	}
	wg.Wait()
	b.stop()
	b.check(awake.Load() == int64(b.n), "%d woke up, want %d", awake.Load(), b.n)
	b.check(early.Load() == 0, "%d woke up early", early.Load())
}

// parkAll starts b.n goroutines that wait for a gate, times that, calls f while all of them wait,
// and lets them go.
func parkAll(b *bench, f func()) {
	gate := make(chan struct{})
	var parked, done sync.WaitGroup
	var passed atomic.Int64
	parked.Add(b.n)
	b.start()
	for range b.n {
		done.Go(func() {
			parked.Done()
			<-gate
			passed.Add(1)
		})
	}
	parked.Wait()
	b.stop()
	f()
	b.check(passed.Load() == 0, "%d goroutines passed a closed gate", passed.Load())
	close(gate)
	done.Wait()
	b.check(passed.Load() == int64(b.n), "%d goroutines passed the gate, want %d", passed.Load(),
		b.n)
}

// 100,000 goroutines, all parked at once. Op: start one and let it park.
func startPark(b *bench) { parkAll(b, func() {}) }

// A million parked goroutines and what they weigh. Op: start one and let it park.
func parked(b *bench) {
	before, err := residentBytes()
	b.check(err == nil, "%v", err)
	parkAll(b, func() {
		after, err := residentBytes()
		b.check(err == nil, "%v", err)
		b.report(float64(after-before)/float64(b.n), "bytes/G")
	})
}

// A ring in an order that nothing predicts. Op: one hop.
func randomRing(b *bench) {
	const size = 100_000
	order := rand.New(rand.NewSource(int64(b.seed))).Perm(size)
	c := make([]chan int, size)
	for i := range c {
		c[i] = make(chan int)
	}
	last := make(chan int)
	var parked, done sync.WaitGroup
	parked.Add(size)
	next := make([]int, size)
	for k := range size {
		next[order[k]] = order[(k+1)%size]
	}
	for i := range size {
		from, to := c[i], c[next[i]]
		done.Go(func() {
			parked.Done()
			for token := range from {
				if token == 0 {
					last <- 0
				} else {
					to <- token - 1
				}
			}
		})
	}
	parked.Wait()
	b.start()
	c[order[0]] <- b.n
	at := <-last
	b.stop()
	for i := range c {
		close(c[i])
	}
	done.Wait()
	b.check(at == 0, "the token was lost")
}

// 100,000 are parked, and woken in an order that nothing predicts, 64 at a time. Op: one of them woken, resumed, parked.
func randomWake(b *bench) {
	const size, atOnce = 100_000, 64
	order := rand.New(rand.NewSource(int64(b.seed))).Perm(size)
	c := make([]chan int, size)
	for i := range c {
		c[i] = make(chan int)
	}
	got := make([]int, size)
	var parked, done sync.WaitGroup
	parked.Add(size)
	for i := range size {
		from, mine := c[i], &got[i]
		done.Go(func() {
			parked.Done()
			for x := range from {
				*mine += x
			}
		})
	}
	parked.Wait()
	b.start()
	for sent := 0; sent < b.n; {
		for k := 0; k < atOnce && sent < b.n; k++ {
			c[order[sent%size]] <- 1
			sent++
		}
		runtime.Gosched()
	}
	b.stop()
	for i := range c {
		close(c[i])
	}
	done.Wait()
	all := 0
	for _, n := range got {
		all += n
	}
	b.check(all == b.n, "values were lost")
}

// All sleep at once. Op: one sleeper; what the process took at most.
func sleepersPeak(b *bench) {
	var done sync.WaitGroup
	b.start()
	for range b.n {
		done.Go(func() { time.Sleep(10 * time.Second) })
	}
	done.Wait()
	b.stop()
	peak, err := peakBytes()
	b.check(err == nil, "%v", err)
	b.report(float64(peak), "peak-bytes")
}

// A timer that is stopped before it fires. Op: start and stop.
func timerStop(b *bench) {
	stopped := 0
	b.start()
	for range b.n {
		t := time.NewTimer(time.Hour)
		if t.Stop() {
			stopped++
		}
	}
	b.stop()
	b.check(stopped == b.n, "%d timers stopped, want %d", stopped, b.n)
}

func fib(n int) int {
	if n < 2 {
		return n
	}
	var x, y int
	var wg sync.WaitGroup
	wg.Go(func() { x = fib(n - 1) })
	wg.Go(func() { y = fib(n - 2) })
	wg.Wait()
	return x + y
}

// fib(27), each call in a goroutine of its own. Op: one goroutine.
func fib27(b *bench) {
	var result int
	var wg sync.WaitGroup
	b.start()
	wg.Go(func() { result = fib(27) })
	wg.Wait()
	b.stop()
	b.check(result == 196_418, "fib(27) = %d", result)
}
