package harness

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Clock is the wall clock of one daemon, which can be stepped while it runs,
// as a person or ntpd does; its monotonic clock goes on, as the kernel's does.
//
// A process asks the page that the kernel maps into it (vdso(7)) for the time.
// Its function for that is replaced before the process begins, in its own copy
// of the page, by one that adds what stands beside it. That needs no rights.
type Clock struct {
	mu  sync.Mutex
	off time.Duration
	pid int
	at  int64 // of the offset, in the process's memory
}

// NewClock gives a clock that goes right. A test is skipped where the processor
// is one for which there is no replacement.
func NewClock(t T) *Clock {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		if s, ok := t.(skipper); ok {
			s.Skipf("a process's clock can be stepped on amd64 alone, this is %s", runtime.GOARCH)
		}
		t.Fatalf("no clock for %s", runtime.GOARCH)
	}
	return &Clock{}
}

// Now is the time by this clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Round(0).Add(c.off)
}

// Step sets the clock forward, or back, at once; whole seconds. What starts
// later starts with it.
func (c *Clock) Step(by time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += by.Truncate(time.Second)
	if c.pid == 0 {
		return nil
	}
	if err := c.write(); !errors.Is(err, os.ErrNotExist) { // it has ended: the next one starts with it
		return err
	}
	return nil
}

// The replacement: clock_gettime(2) itself, and for CLOCK_REALTIME, which is 0,
// the offset in seconds added to the first word of the answer.
var steppedTime = []byte{
	0xb8, 0xe4, 0, 0, 0, //    mov eax, 228
	0x0f, 0x05, //             syscall
	0x85, 0xff, //             test edi, edi
	0x75, 0x0a, //             jne to the end
	0x48, 0x8b, 0x0d, 0, 0, 0, 0, // mov rcx, [rip+distance]
	0x48, 0x01, 0x0e, //       add [rsi], rcx
	0xc3, //                   ret
}

const (
	loadsOffset = 14 // where the distance stands
	loadedBy    = 18 // what it is counted from
)

// rule takes a process that has not begun yet.
func (c *Clock) rule(pid int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	base, size, err := timePage(pid)
	if err != nil {
		return err
	}
	page := make([]byte, size)
	if _, err := memory.ReadAt(page, base); err != nil {
		return fmt.Errorf("read the page of time: %w", err)
	}
	image, err := elf.NewFile(bytes.NewReader(page))
	if err != nil {
		return fmt.Errorf("read the page of time: %w", err)
	}
	symbols, err := image.DynamicSymbols()
	if err != nil {
		return fmt.Errorf("read the page of time: %w", err)
	}
	for _, s := range symbols {
		if s.Name != "__vdso_clock_gettime" {
			continue
		}
		at := base + int64(s.Value)
		c.pid, c.at = pid, (at+int64(len(steppedTime))+7)&^7
		if c.at+8 > at+int64(s.Size) {
			return errors.New("the page of time has no room for another function")
		}
		code := bytes.Clone(steppedTime)
		binary.LittleEndian.PutUint32(code[loadsOffset:], uint32(c.at-at-loadedBy))
		if _, err := memory.WriteAt(code, at); err != nil {
			return fmt.Errorf("replace the function of time: %w", err)
		}
		return c.write()
	}
	return errors.New("the page of time has no function for it")
}

// write puts the offset into the process; the lock is held.
func (c *Clock) write() error {
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	var seconds [8]byte
	binary.LittleEndian.PutUint64(seconds[:], uint64(int64(c.off/time.Second)))
	if _, err := memory.WriteAt(seconds[:], c.at); err != nil {
		return fmt.Errorf("step the clock of pid %d: %w", c.pid, err)
	}
	return nil
}

// timePage is where the kernel has mapped it.
func timePage(pid int) (base, size int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		from, to, _ := strings.Cut(strings.Fields(line)[0], "-")
		first, ferr := strconv.ParseInt(from, 16, 64)
		last, lerr := strconv.ParseInt(to, 16, 64)
		return first, last - first, errors.Join(ferr, lerr)
	}
	return 0, 0, errors.New("the kernel maps no page of time")
}
