/* Streams: work is queued by the caller and done in order by a thread of each stream.
 *
 * One lock and one condition serve all queues of the process; the work itself runs without the
 * lock. Order across streams follows CUDA: work in a context's null stream waits for all that its
 * blocking streams hold, and theirs for the null stream's; event waits are the same mechanism. Once
 * there is a sticky error nothing is run any more, running kernels are interrupted and everyone who
 * waits is released. A stream's record outlives cuStreamDestroy, so that waits for it stay valid.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim.h"

struct CUstream_st {
    CUcontext context;
    unsigned flags;
    int priority;
    bool alive;
    bool started, in_work;
    pthread_t thread;
    pthread_cond_t work;
    struct sim_work *head, *tail;
    uint64_t submitted, done;
    struct CUstream_st *next;
};

static struct CUstream_st *streams; /* every stream ever made; under sim.queue_lock */

#define LOOK_AGAIN_NS                                                                              \
    20000000L /* a sticky error set by a server that cannot wake us is seen after this long */

static void wait_progress(void) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_AGAIN_NS;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&sim.progress, &sim.queue_lock, &until);
}

static void cancel_running(void) {
    for (struct CUstream_st *s = streams; s != NULL; s = s->next)
        if (s->in_work)
            sim_cancel_thread(s->thread);
}

void sim_stop_work(void) {
    pthread_mutex_lock(&sim.queue_lock);
    cancel_running();
    for (struct CUstream_st *s = streams; s != NULL; s = s->next)
        pthread_cond_broadcast(&s->work);
    pthread_cond_broadcast(&sim.progress);
    pthread_mutex_unlock(&sim.queue_lock);
}

static void *stream_main(void *argument) {
    struct CUstream_st *s = argument;
    pthread_mutex_lock(&sim.queue_lock);
    for (;;) {
        while (s->head == NULL && s->alive)
            pthread_cond_wait(&s->work, &sim.queue_lock);
        struct sim_work *work = s->head;
        if (work == NULL)
            break;
        for (int i = 0; i < work->n_waits; i++)
            while (work->waits[i].stream->done < work->waits[i].count &&
                   sim_sticky() == CUDA_SUCCESS)
                wait_progress();
        s->head = work->next;
        if (s->head == NULL)
            s->tail = NULL;
        s->in_work = true;
        pthread_mutex_unlock(&sim.queue_lock);
        if (sim_sticky() == CUDA_SUCCESS)
            work->run(work);
        if (work->drop != NULL)
            work->drop(work);
        free(work->waits);
        free(work);
        pthread_mutex_lock(&sim.queue_lock);
        s->in_work = false;
        s->done++;
        pthread_cond_broadcast(&sim.progress);
    }
    pthread_mutex_unlock(&sim.queue_lock);
    return NULL;
}

/* Under the lock. The program's signals are handled by its own threads; ours takes only what a
 * kernel can cause. */
static bool start(struct CUstream_st *s) {
    sigset_t all, old;
    sigfillset(&all);
    const int ours[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGRTMAX - 1};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        sigdelset(&all, ours[i]);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int error = pthread_create(&s->thread, NULL, stream_main, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error == 0)
        pthread_detach(s->thread);
    return error == 0;
}

CUstream sim_stream_new(CUcontext context, unsigned flags) {
    struct CUstream_st *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    *s = (struct CUstream_st){.context = context, .flags = flags, .alive = true};
    pthread_cond_init(&s->work, NULL);
    pthread_mutex_lock(&sim.queue_lock);
    s->next = streams;
    streams = s;
    pthread_mutex_unlock(&sim.queue_lock);
    return s;
}

CUdevice sim_stream_device(CUstream stream) {
    return stream->context->device;
}

CUresult sim_stream_resolve(CUstream handle, CUstream *stream) {
    const CUcontext current = sim_current();
    if (handle == NULL || handle == CU_STREAM_LEGACY_HANDLE ||
        handle == CU_STREAM_PER_THREAD_HANDLE) {
        if (current == NULL)
            return CUDA_ERROR_INVALID_CONTEXT;
        *stream = current->null_stream;
        return CUDA_SUCCESS;
    }
    CUresult result = CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&sim.queue_lock);
    for (struct CUstream_st *s = streams; s != NULL; s = s->next)
        if (s == handle && s->alive) {
            *stream = s;
            result = CUDA_SUCCESS;
        }
    pthread_mutex_unlock(&sim.queue_lock);
    return result;
}

static bool add_wait(struct sim_work *work, struct CUstream_st *stream, uint64_t count) {
    if (stream->done >= count)
        return true;
    struct sim_wait *more = realloc(work->waits, sizeof *more * (size_t)(work->n_waits + 1));
    if (more == NULL)
        return false;
    more[work->n_waits++] = (struct sim_wait){.stream = stream, .count = count};
    work->waits = more;
    return true;
}

/* CUDA's order between the null stream and the blocking streams of a context. */
static bool order_with_null(struct CUstream_st *s, struct sim_work *work) {
    struct CUstream_st *null = s->context->null_stream;
    if (s->flags & CU_STREAM_NON_BLOCKING)
        return true;
    if (s != null)
        return add_wait(work, null, null->submitted);
    bool good = true;
    for (struct CUstream_st *other = streams; other != NULL; other = other->next)
        if (other != s && other->context == s->context && !(other->flags & CU_STREAM_NON_BLOCKING))
            good = good && add_wait(work, other, other->submitted);
    return good;
}

CUresult sim_submit(CUstream s, struct sim_work *work) {
    work->next = NULL;
    work->stream = s;
    pthread_mutex_lock(&sim.queue_lock);
    bool good = s->alive && order_with_null(s, work);
    if (good && !s->started)
        good = s->started = start(s);
    if (good) {
        if (s->tail != NULL)
            s->tail->next = work;
        else
            s->head = work;
        s->tail = work;
        s->submitted++;
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&sim.queue_lock);
    if (!good) {
        if (work->drop != NULL)
            work->drop(work);
        free(work->waits);
        free(work);
    }
    return good ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

/* Under the lock: until `count` pieces of work are done. */
static CUresult wait_done(struct CUstream_st *s, uint64_t count) {
    while (s->done < count && sim_sticky() == CUDA_SUCCESS)
        wait_progress();
    const CUresult sticky = sim_sticky();
    if (sticky != CUDA_SUCCESS)
        cancel_running();
    return sticky;
}

CUresult sim_wait_stream(CUstream s) {
    pthread_mutex_lock(&sim.queue_lock);
    CUresult result = wait_done(s, s->submitted);
    if (s == s->context->null_stream) /* the null stream stands for the blocking ones as well */
        for (struct CUstream_st *other = streams; other != NULL && result == CUDA_SUCCESS;
             other = other->next)
            if (other->context == s->context && !(other->flags & CU_STREAM_NON_BLOCKING))
                result = wait_done(other, other->submitted);
    pthread_mutex_unlock(&sim.queue_lock);
    return result;
}

CUresult sim_wait_context(CUcontext context) {
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&sim.queue_lock);
    for (struct CUstream_st *s = streams; s != NULL && result == CUDA_SUCCESS; s = s->next)
        if (s->context == context)
            result = wait_done(s, s->submitted);
    pthread_mutex_unlock(&sim.queue_lock);
    return result == CUDA_SUCCESS ? sim_sticky() : result;
}

static void end_stream(struct CUstream_st *s) {
    s->alive = false;
    pthread_cond_broadcast(&s->work);
}

void sim_context_streams_end(CUcontext context) {
    pthread_mutex_lock(&sim.queue_lock);
    for (struct CUstream_st *s = streams; s != NULL; s = s->next)
        if (s->context == context)
            end_stream(s);
    pthread_mutex_unlock(&sim.queue_lock);
}

/* ---- the interface: streams ---- */

SIM_EXPORT CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) {
    ENTER(NEED_HEALTH);
    if (stream == NULL || (flags & ~(unsigned)CU_STREAM_NON_BLOCKING) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    const CUcontext context = sim_current();
    if (context == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *stream = sim_stream_new(context, flags);
    if (*stream == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*stream)->priority = priority;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    ENTER(NEED_HEALTH);
    return cuStreamCreateWithPriority(stream, flags, 0);
}

SIM_EXPORT CUresult cuStreamDestroy_v2(CUstream handle) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS || s == s->context->null_stream)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&sim.queue_lock);
    end_stream(s); /* what is queued is still done */
    pthread_mutex_unlock(&sim.queue_lock);
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuStreamSynchronize(CUstream handle) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    return result == CUDA_SUCCESS ? sim_wait_stream(s) : result;
}

SIM_EXPORT CUresult cuStreamQuery(CUstream handle) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&sim.queue_lock);
    const bool idle = s->done == s->submitted;
    pthread_mutex_unlock(&sim.queue_lock);
    return idle ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

SIM_EXPORT CUresult cuStreamGetFlags(CUstream handle, unsigned *flags) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result == CUDA_SUCCESS && flags != NULL)
        *flags = s->flags;
    return flags == NULL ? CUDA_ERROR_INVALID_VALUE : result;
}

SIM_EXPORT CUresult cuStreamGetPriority(CUstream handle, int *priority) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result == CUDA_SUCCESS && priority != NULL)
        *priority = s->priority;
    return priority == NULL ? CUDA_ERROR_INVALID_VALUE : result;
}

SIM_EXPORT CUresult cuStreamGetCtx(CUstream handle, CUcontext *context) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result == CUDA_SUCCESS && context != NULL)
        *context = s->context;
    return context == NULL ? CUDA_ERROR_INVALID_VALUE : result;
}

struct host_call {
    struct sim_work work;
    CUhostFn fn;
    void *data;
};

static void run_host_call(struct sim_work *work) {
    struct host_call *call = (struct host_call *)work;
    call->fn(call->data);
}

SIM_EXPORT CUresult cuLaunchHostFunc(CUstream handle, CUhostFn fn, void *data) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS || fn == NULL)
        return fn == NULL ? CUDA_ERROR_INVALID_VALUE : result;
    struct host_call *call = calloc(1, sizeof *call);
    if (call == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *call = (struct host_call){.work.run = run_host_call, .fn = fn, .data = data};
    return sim_submit(s, &call->work);
}

/* ---- the interface: events ---- */

struct CUevent_st {
    CUcontext context;
    unsigned flags;
    bool alive;
    CUstream stream; /* of the latest record */
    uint64_t count;
    _Atomic uint64_t when; /* ns; 0 until it has happened */
    struct CUevent_st *next;
};

static struct CUevent_st *events; /* every event ever made; under sim.queue_lock */

struct record {
    struct sim_work work;
    struct CUevent_st *event;
};

static bool event_ok(CUevent handle) {
    bool found = false;
    pthread_mutex_lock(&sim.queue_lock);
    for (struct CUevent_st *e = events; e != NULL; e = e->next)
        found = found || (e == handle && e->alive);
    pthread_mutex_unlock(&sim.queue_lock);
    return found;
}

SIM_EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
    ENTER(NEED_HEALTH);
    if (event == NULL || flags > 7)
        return CUDA_ERROR_INVALID_VALUE;
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    struct CUevent_st *e = calloc(1, sizeof *e);
    if (e == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    e->context = sim_current();
    e->flags = flags;
    e->alive = true;
    pthread_mutex_lock(&sim.queue_lock);
    e->next = events;
    events = e;
    pthread_mutex_unlock(&sim.queue_lock);
    *event = e;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuEventDestroy_v2(CUevent event) {
    ENTER(NEED_HEALTH);
    if (!event_ok(event))
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&sim.queue_lock);
    event->alive = false; /* a record in a queue may still point here */
    pthread_mutex_unlock(&sim.queue_lock);
    return CUDA_SUCCESS;
}

static void run_record(struct sim_work *work) {
    atomic_store(&((struct record *)work)->event->when, sim_now_ns());
}

SIM_EXPORT CUresult cuEventRecord(CUevent event, CUstream handle) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS || !event_ok(event))
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_HANDLE;
    struct record *record = calloc(1, sizeof *record);
    if (record == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    record->work.run = run_record;
    record->event = event;
    atomic_store(&event->when, 0);
    const CUresult submitted = sim_submit(s, &record->work);
    pthread_mutex_lock(&sim.queue_lock);
    event->stream = s;
    event->count = s->submitted;
    pthread_mutex_unlock(&sim.queue_lock);
    return submitted;
}

SIM_EXPORT CUresult cuEventQuery(CUevent event) {
    ENTER(NEED_HEALTH);
    if (!event_ok(event))
        return CUDA_ERROR_INVALID_HANDLE;
    return event->stream == NULL || atomic_load(&event->when) != 0 ? CUDA_SUCCESS
                                                                   : CUDA_ERROR_NOT_READY;
}

SIM_EXPORT CUresult cuEventSynchronize(CUevent event) {
    ENTER(NEED_HEALTH);
    if (!event_ok(event))
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&sim.queue_lock);
    if (event->stream != NULL)
        result = wait_done(event->stream, event->count);
    pthread_mutex_unlock(&sim.queue_lock);
    return result;
}

SIM_EXPORT CUresult cuEventElapsedTime_v2(float *ms, CUevent from, CUevent to) {
    ENTER(NEED_HEALTH);
    if (ms == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (!event_ok(from) || !event_ok(to) || from->stream == NULL || to->stream == NULL ||
        ((from->flags | to->flags) & CU_EVENT_DISABLE_TIMING))
        return CUDA_ERROR_INVALID_HANDLE;
    const uint64_t start_ns = atomic_load(&from->when), end_ns = atomic_load(&to->when);
    if (start_ns == 0 || end_ns == 0)
        return CUDA_ERROR_NOT_READY;
    *ms = (float)((double)((int64_t)(end_ns - start_ns)) / 1e6);
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
    return cuEventElapsedTime_v2(ms, from, to);
}

static void run_nothing(struct sim_work *work) {
    (void)work; /* the waiting is done by the queue */
}

SIM_EXPORT CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS || !event_ok(event) || flags > 1)
        return result != CUDA_SUCCESS ? result
               : flags > 1            ? CUDA_ERROR_INVALID_VALUE
                                      : CUDA_ERROR_INVALID_HANDLE;
    struct sim_work *wait = calloc(1, sizeof *wait);
    if (wait == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    wait->run = run_nothing;
    pthread_mutex_lock(&sim.queue_lock);
    const bool good = event->stream == NULL || add_wait(wait, event->stream, event->count);
    pthread_mutex_unlock(&sim.queue_lock);
    if (!good) {
        free(wait);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return sim_submit(s, wait);
}
