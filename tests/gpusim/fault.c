/* GPU faults: a kernel or copy that does something illegal is ended, its process (or MPS server)
 * gets a sticky error, the kernel log gets the Xid.
 *
 * A kernel runs on the CPU, so its illegal accesses raise SIGSEGV here; the handler leaves the
 * kernel by siglongjmp. (A first access to memory that is not in the shadow yet raises it too, and
 * is repeated when it is: space.c.) Faults outside of a guarded run go to whoever handled the
 * signal before us. Misaligned accesses are found by the compiler's checks (kernels.cpp), traps and
 * asserts call sim_kernel_stop. An endless kernel is left by a signal to its thread (SIGRTMAX-1),
 * but only once there is a sticky error: a healthy kernel is never interrupted.
 *
 * The texts are what driver 580 prints, as far as samples are known; register values in them are
 * those of one sample.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "sim.h"

#define CANCEL_SIGNAL (SIGRTMAX - 1)

struct guard {
    sigjmp_buf leave;
    volatile sig_atomic_t active;
    struct sim_stopped stopped;
};

/* initial-exec: the handler must not be the first to touch it, and then allocate. */
static _Thread_local struct guard guard __attribute__((tls_model("initial-exec")));
static struct sigaction before[_NSIG];
static _Atomic int private_sticky;

static void leave(enum sim_stop kind, uintptr_t host_address, bool write) {
    guard.stopped =
        (struct sim_stopped){.kind = kind,
                             .address = (CUdeviceptr)(host_address - (uintptr_t)sim_shadow),
                             .write = write};
    guard.active = 0;
    siglongjmp(guard.leave, 1);
}

static void pass_on(int number, siginfo_t *info, void *context) {
    const struct sigaction *old = &before[number];
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(number, info, context);
    else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN)
        old->sa_handler(number);
    else
        signal(number, SIG_DFL); /* the access is repeated and ends the process */
}

static void on_bad_access(int number, siginfo_t *info, void *context) {
    const uintptr_t address = (uintptr_t)info->si_addr;
    const uintptr_t shadow = (uintptr_t)SIM_WINDOW + (uintptr_t)sim_shadow;
    if (number == SIGBUS && guard.active)
        sim_say("simgpu: the host has no room for simulated GPU memory: see df of SIMGPU_DIR");
    const bool ours = address - shadow < SIM_WINDOW_SIZE + SIM_NOWHERE_SIZE;
    if (number != SIGSEGV || !guard.active || !ours) {
        pass_on(number, info, context);
        return;
    }
    const ucontext_t *machine = context;
    const bool write = (machine->uc_mcontext.gregs[REG_ERR] & 2) != 0;
    if (!sim_touched((CUdeviceptr)(address - (uintptr_t)sim_shadow), write))
        leave(STOP_ACCESS, address, write);
}

static void on_illegal(int number, siginfo_t *info, void *context) {
    if (guard.active)
        leave(STOP_ILLEGAL, 0, false);
    pass_on(number, info, context);
}

static void on_cancel(int number) {
    (void)number;
    if (guard.active && sim_sticky() != CUDA_SUCCESS)
        leave(STOP_CANCELLED, 0, false);
}

static bool install(int number, void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    action.sa_sigaction = handler;
    return sigaction(number, &action, &before[number]) == 0;
}

bool sim_fault_setup(void) {
    static bool done;
    struct sigaction cancel = {.sa_handler = on_cancel, .sa_flags = SA_NODEFER | SA_RESTART};
    if (!done)
        done = install(SIGSEGV, on_bad_access) && install(SIGBUS, on_bad_access) &&
               install(SIGILL, on_illegal) && sigaction(CANCEL_SIGNAL, &cancel, NULL) == 0;
    return done;
}

void sim_cancel_thread(pthread_t thread) {
    pthread_kill(thread, CANCEL_SIGNAL);
}

struct sim_stopped sim_guarded(void (*fn)(void *), void *argument) {
    if (sigsetjmp(guard.leave, 0) !=
        0) /* no mask saved: the handlers do not change it (SA_NODEFER) */
        return guard.stopped;
    guard.active = 1;
    atomic_thread_fence(
        memory_order_seq_cst); /* either we see the sticky error or its setter sees us active */
    if (sim_sticky() != CUDA_SUCCESS) {
        guard.active = 0;
        return (struct sim_stopped){.kind = STOP_CANCELLED};
    }
    fn(argument);
    guard.active = 0;
    return (struct sim_stopped){.kind = STOP_NONE};
}

void sim_kernel_stop(int kind, const void *address, int write) {
    if (!guard.active) {
        sim_say("simgpu: a kernel stopped outside of a launch");
        abort();
    }
    leave((enum sim_stop)kind, (uintptr_t)address, write != 0);
    abort(); /* not reached */
}

CUresult sim_sticky(void) {
    const int own = atomic_load_explicit(&private_sticky, memory_order_relaxed);
    return own != 0 ? own : (CUresult)mps_sticky();
}

void sim_set_sticky(CUresult code) {
    int none = 0;
    if (mps_sticky() == 0 || code == CUDA_ERROR_MPS_CLIENT_TERMINATED)
        atomic_compare_exchange_strong(&private_sticky, &none, code);
    sim_stop_work();
}

/* The kernel log's words for a fault. */
static void describe(const struct sim_stopped *stopped, bool copy, CUdeviceptr address, char *text,
                     size_t size) {
    const char *type = sim_is_mapped(address, 1, false) ? "FAULT_RO_VIOLATION" : "FAULT_PDE";
    const char *sm = "Graphics SM Warp Exception on (GPC 0, TPC 0, SM 0): ";
    switch (stopped->kind) {
    case STOP_ACCESS:
        snprintf(text, size,
                 "Ch %08x, intr 00000000. MMU Fault: ENGINE %s faulted @ 0x%x_%08x. Fault is of "
                 "type %s ACCESS_TYPE_VIRT_%s",
                 copy ? 0x10 : 0x8, copy ? "CE2 HUBCLIENT_CE0" : "GRAPHICS GPCCLIENT_T1_0",
                 (unsigned)(address >> 32), (unsigned)address & ~0xfffu, type,
                 stopped->write ? "WRITE" : "READ");
        break;
    case STOP_MISALIGNED:
        snprintf(text, size, "%sMisaligned Address", sm);
        break;
    case STOP_ILLEGAL:
        snprintf(text, size, "%sIllegal Instruction Encoding", sm);
        break;
    case STOP_RANGE:
        snprintf(text, size, "%sOut Of Range Address", sm);
        break;
    case STOP_STACK:
        snprintf(text, size, "%sStack Error", sm);
        break;
    case STOP_BRANCH:
        snprintf(text, size, "%sInvalid PC", sm);
        break;
    default:
        snprintf(text, size,
                 "Graphics Exception: ESR 0x505730=0xc04000b 0x505734=0x20 0x505728=0x4c1eb72 "
                 "0x50572c=0x174");
    }
}

void sim_raise(CUdevice device, const struct sim_stopped *stopped, bool copy,
               CUdeviceptr bad_pointer) {
    static const struct {
        CUresult code;
        int xid;
    } outcome[] = {
        [STOP_ACCESS] = {CUDA_ERROR_ILLEGAL_ADDRESS, 31},
        [STOP_MISALIGNED] = {CUDA_ERROR_MISALIGNED_ADDRESS, 13},
        [STOP_ILLEGAL] = {CUDA_ERROR_ILLEGAL_INSTRUCTION, 13},
        [STOP_TRAP] = {CUDA_ERROR_LAUNCH_FAILED, 13},
        [STOP_ASSERT] = {CUDA_ERROR_ASSERT, 0},
        [STOP_RANGE] = {CUDA_ERROR_LAUNCH_FAILED, 13},
        [STOP_STACK] = {CUDA_ERROR_HARDWARE_STACK_ERROR, 13},
        [STOP_BRANCH] = {CUDA_ERROR_INVALID_PC, 13},
    };
    if (stopped->kind == STOP_NONE || stopped->kind == STOP_CANCELLED)
        return;
    const CUresult code = outcome[stopped->kind].code;
    const int xid = stopped->kind == STOP_ASSERT
                        ? sim_number(&sim.host, "assert_xid", sim.host.assert_xid)
                        : outcome[stopped->kind].xid;
    const CUdeviceptr address = sim_is_device(stopped->address) ? stopped->address : bad_pointer;
    if (xid != 0) {
        char text[256];
        describe(stopped, copy, address, text, sizeof text);
        sim_log_xid(&sim.host, sim_gpu_of(device), xid, text);
    }
    const bool isolated = xid == 31 && sim_number(&sim.host, "guard", sim.host.guard) != 0;
    if (sim.mps && (xid == 31 || xid == 13) && !isolated)
        mps_tell_fault((uint32_t)code, xid);
    sim_set_sticky(code);
}
