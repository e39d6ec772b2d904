/* What the files of the simulated driver share: the host's description, physical memory, the
 * process's state, faults.
 *
 * host.c and pool.c serve both libraries; everything from `struct sim_process` on belongs to
 * libcuda alone. Lock order: sim.memory_lock, then sim.queue_lock. A signal handler takes no lock.
 */
#ifndef GPUSIM_SIM_H
#define GPUSIM_SIM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cuda_abi.h"
#include "kernel_table.h"

#define SIM_EXPORT __attribute__((visibility("default")))
#define SIM_GRANULARITY                                                                            \
    (2ull << 20) /* bytes; what an H200 answers, minimum and recommended alike */
#define SIM_MAX_GPUS 16

/* ---- host.c: the simulated host, $SIMGPU_DIR/host.conf ---- */

struct sim_gpu {
    int minor;
    char uuid[48]; /* "GPU-" and 36 characters */
    unsigned char uuid_bytes[16];
    uint64_t memory; /* bytes */
    char name[64];
    char bus_id[24]; /* 0000:06:00.0 */
    unsigned domain, bus, device;
    int compute_mode;    /* as nvidia-smi numbers it; 0 is DEFAULT */
    int recovery_action; /* NVML field 230 */
};

struct sim_host {
    char dir[200];
    struct sim_gpu gpu[SIM_MAX_GPUS];
    int gpus;
    char driver[32];
    int cuda;
    int context_ms, context_mib, cuinit_ms;
    int assert_xid; /* what a failed assert logs: 0 nothing, 13 or 43 (open question) */
    int guard;      /* 1: an MMU fault of an MPS client stays with that client */
};

/* Reads host.conf. False, after one line on stderr, when SIMGPU_DIR is unset or the file is broken.
 */
bool sim_host_load(struct sim_host *host);
/* `set <key> <number>` of $SIMGPU_DIR/inject, read anew at each call and the last one counting;
 * else `fallback`. */
int sim_number(const struct sim_host *host, const char *key, int fallback);
/* The GPUs that `list` (CUDA_VISIBLE_DEVICES; NULL: all) leaves of the `n` in `from`; returns how
 * many. Like the driver it stops at the first bad word. */
int sim_visible(const struct sim_host *host, const char *list, const int *from, int n, int *out);
/* This process's number as the driver and the MPS server know it, who are outside of the pid
 * namespace that the program may be in: what the server saw at the connection (SO_PEERCRED). */
pid_t sim_pid(void);
void sim_known_as(pid_t pid);
/* The driver's line in the kernel log and NVML's event. `text` follows "pid=…, name=…, ". */
void sim_log_xid(const struct sim_host *host, const struct sim_gpu *gpu, int xid, const char *text);
void sim_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sim_sleep_ms(int ms);
uint64_t sim_now_ns(void);

/* ---- pool.c: physical memory ---- */

/* Creates `size` bytes of physical memory: 0 and a descriptor, ENOMEM when the GPU is full, or
 * another errno. */
int pool_create(const struct sim_host *host, const struct sim_gpu *gpu, uint64_t size, int *fd);
/* What a descriptor of physical memory is: 0, or EINVAL when it is something else. */
int pool_describe(int fd, uint64_t *size, int *minor);
/* Each file of memory on a GPU that somebody holds: the process that created it, and its bytes.
 * Clears away what nobody holds any more. */
void pool_each(const struct sim_host *host, int minor, void (*take)(void *, pid_t, uint64_t),
               void *with);
/* All bytes of them. */
uint64_t pool_used(const struct sim_host *host, int minor);

/* ---- libcuda: the state of the process ---- */

enum sim_state { SIM_COLD, SIM_READY, SIM_FORKED };

struct sim_process {
    _Atomic int state;
    struct sim_host host;
    int device[SIM_MAX_GPUS]; /* ordinal -> index into host.gpu */
    int devices;
    bool mps;
    pthread_mutex_t memory_lock, queue_lock;
    pthread_cond_t progress; /* some work ended, or the sticky error was set */
};

extern struct sim_process sim;

static inline const struct sim_gpu *sim_gpu_of(CUdevice device) {
    return &sim.host.gpu[sim.device[device]];
}

static inline bool sim_device_ok(CUdevice device) {
    return device >= 0 && device < sim.devices;
}

/* ---- entry.c: what every function of the interface does first ---- */

struct sim_site {
    const char *name;
    _Atomic unsigned calls;
};

enum sim_need { NEED_NOTHING, NEED_INIT, NEED_HEALTH };

/* The error with which this call must end at once, or 0. Counts the call and obeys
 * $SIMGPU_DIR/inject. */
CUresult sim_enter(struct sim_site *site, enum sim_need need);

#define ENTER(need)                                                                                \
    do {                                                                                           \
        static struct sim_site site_ = {.name = __func__};                                         \
        const CUresult entered_ = sim_enter(&site_, need);                                         \
        if (entered_ != CUDA_SUCCESS)                                                              \
            return entered_;                                                                       \
    } while (0)

/* ---- context.c ---- */

struct CUctx_st {
    CUdevice device;
    unsigned flags;
    bool alive;
    int references; /* of a primary context */
    CUstream null_stream;
    int memory_fd; /* what the context itself takes of the GPU's memory; -1: nothing */
    struct CUctx_st *next;
};

/* The calling thread's context, or NULL. */
CUcontext sim_current(void);
bool sim_context_ok(CUcontext context);
void sim_contexts_after_fork(void);

/* ---- stream.c: work in order, on a thread for each stream ---- */

struct sim_wait {
    CUstream stream;
    uint64_t count;
};

struct sim_work {
    void (*run)(struct sim_work *work);  /* frees nothing; the queue frees `work` */
    void (*drop)(struct sim_work *work); /* frees what `work` holds, may be NULL */
    struct sim_work *next;
    CUstream stream;
    struct sim_wait *waits;
    int n_waits;
    size_t size; /* of the whole piece, which can be copied for a graph; 0: it cannot */
};

CUdevice sim_stream_device(CUstream stream);
CUresult sim_stream_resolve(CUstream handle, CUstream *stream);
CUstream sim_stream_new(CUcontext context, unsigned flags, int priority);
/* Queues work that was allocated with malloc; from here on the queue owns it. */
CUresult sim_submit(CUstream stream, struct sim_work *work);
/* Waits for all work of a stream, or of a context (stream NULL), that is queued now; the sticky
 * error ends the wait. */
CUresult sim_wait_stream(CUstream stream);
CUresult sim_wait_context(CUcontext context);
void sim_context_streams_end(CUcontext context);
/* After the sticky error was set: interrupts running kernels and wakes everyone who waits. */
void sim_stop_work(void);

/* ---- space.c, handle.c, alloc.c, host_memory.c ---- */

/* Start of the window of device addresses, its length, and the distance to the host's shadow of it.
 */
#define SIM_WINDOW 0x200000000000ull
#define SIM_WINDOW_SIZE (1ull << 40)
#define SIM_NOWHERE_SIZE                                                                           \
    (1ull << 36) /* behind the shadow: where addresses that are no device addresses lead */
extern intptr_t sim_shadow;

bool sim_window_open(void);
/* A host pointer to use for a device address; an address outside the window gives one that faults.
 */
void *sim_host_address(CUdeviceptr address);
bool sim_is_device(CUdeviceptr address);
bool sim_is_pinned_host(const void *pointer, size_t size);
/* True when [address, address+size) is all mapped, with the right to write when `write`. */
bool sim_is_mapped(CUdeviceptr address, size_t size, bool write);
/* An access has found nothing there: put the memory there if it is mapped and may be used so. */
bool sim_touched(CUdeviceptr address, bool write);
/* One bit of each mapping is now another: at each call one eight bytes on. */
void sim_spoil(void);
void sim_context_memory_free(CUcontext context);
void sim_memory_after_fork(void);

/* ---- fault.c ---- */

enum sim_stop {
    STOP_NONE,
    STOP_ACCESS,
    STOP_MISALIGNED,
    STOP_ILLEGAL,
    STOP_TRAP,
    STOP_ASSERT,
    STOP_RANGE,
    STOP_STACK,
    STOP_BRANCH,
    STOP_CANCELLED
};

struct sim_stopped {
    enum sim_stop kind;
    CUdeviceptr address;
    bool write;
};

bool sim_fault_setup(void);
/* Runs fn(argument) so that a fault in it ends it and nothing else. */
struct sim_stopped sim_guarded(void (*fn)(void *), void *argument);
/* Makes a stop an error of the process or of the MPS server, with its Xid. `copy`: it was the copy
 * engine's. */
void sim_raise(CUdevice device, const struct sim_stopped *stopped, bool copy,
               CUdeviceptr bad_pointer);
CUresult sim_sticky(void);
/* Sets this process's own sticky error unless there is one already, and stops its work. */
void sim_set_sticky(CUresult code);
/* Asks a worker thread to leave the kernel that it runs. */
void sim_cancel_thread(pthread_t thread);

/* ---- mps_client.c ---- */

struct sim_shared_page {
    uint32_t magic;
    _Atomic uint32_t sticky;
    _Atomic int32_t culprit;
    uint32_t generation;
    struct {
        _Atomic int32_t busy;  /* pieces of this client's work that are not done */
        _Atomic uint32_t hurt; /* by another's end: SIM_…, or the error of further calls */
    } client[255];
};

enum { SIM_UNHURT, SIM_HANGS, SIM_WRONG_BYTES };

#define SIM_PAGE_MAGIC 0x4D505331u

/* Joins the MPS server if a control daemon listens. 0 with *mps set, or the error of cuInit.
 * `minors`: the server's GPUs. */
CUresult mps_attach(bool *mps, int *minors, int *n);
/* The server's sticky error, or what another client's end has made of this one; 0 without MPS. */
uint32_t mps_sticky(void);
/* Work was queued (1) or is done (-1): the server asks for it when we end. */
void mps_work(int more);
uint32_t mps_hurt(void);
/* Bytes that the server lets a client pin on a GPU (index into host.gpu); UINT64_MAX: no limit. */
uint64_t mps_limit(int gpu);
void mps_tell_fault(uint32_t code, int xid);
void mps_after_fork(void);

#endif
