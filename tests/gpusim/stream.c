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

#include "stream.h"

static struct CUstream_st *streams; /* every stream, dead ones too; under sim.queue_lock */

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

/* A piece of work, or what is left of it once another client's end has hurt this one. */
static void run(struct sim_work *work) {
    while (mps_hurt() == SIM_HANGS && sim_sticky() == CUDA_SUCCESS)
        sim_sleep_ms(1);
    if (sim_sticky() == CUDA_SUCCESS)
        work->run(work);
    if (mps_hurt() == SIM_WRONG_BYTES)
        sim_spoil();
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
        run(work);
        mps_work(-1);
        if (work->drop != NULL)
            work->drop(work);
        free(work->waits);
        free(work);
        pthread_mutex_lock(&sim.queue_lock);
        s->in_work = false;
        s->done++;
        pthread_cond_broadcast(&sim.progress);
    }
    s->started = false;
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

/* A dead stream's record whose thread has gone and that nobody can wait for any more, or a new one.
 * Under the lock. */
static struct CUstream_st *record(void) {
    for (struct CUstream_st *s = streams; s != NULL; s = s->next)
        if (!s->alive && !s->started && s->done == s->submitted)
            return s;
    struct CUstream_st *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    pthread_cond_init(&s->work, NULL);
    s->next = streams;
    streams = s;
    return s;
}

CUstream sim_stream_new(CUcontext context, unsigned flags, int priority) {
    pthread_mutex_lock(&sim.queue_lock);
    struct CUstream_st *s = record();
    if (s != NULL) { /* the counters run on: waits for the record's earlier life stay fulfilled */
        s->context = context;
        s->flags = flags;
        s->priority = priority;
        s->capture = NULL;
        s->alive = true;
    }
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

bool stream_add_wait(struct sim_work *work, struct CUstream_st *stream, uint64_t count) {
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
        return stream_add_wait(work, null, null->submitted);
    bool good = true;
    for (struct CUstream_st *other = streams; other != NULL; other = other->next)
        if (other != s && other->context == s->context && !(other->flags & CU_STREAM_NON_BLOCKING))
            good = good && stream_add_wait(work, other, other->submitted);
    return good;
}

CUresult sim_submit(CUstream s, struct sim_work *work) {
    work->next = NULL;
    work->stream = s;
    pthread_mutex_lock(&sim.queue_lock);
    if (s->capture != NULL) {
        const CUresult taken = graph_take(s->capture, work);
        pthread_mutex_unlock(&sim.queue_lock);
        return taken;
    }
    bool good = s->alive && order_with_null(s, work);
    if (good && !s->started)
        good = s->started = start(s);
    if (good) {
        if (s->tail != NULL)
            s->tail->next = work;
        else
            s->head = work;
        s->tail = work;
        mps_work(1);
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
CUresult stream_wait_done(struct CUstream_st *s, uint64_t count) {
    while (s->done < count && sim_sticky() == CUDA_SUCCESS)
        wait_progress();
    const CUresult sticky = sim_sticky();
    if (sticky != CUDA_SUCCESS)
        cancel_running();
    return sticky;
}

CUresult sim_wait_stream(CUstream s) {
    pthread_mutex_lock(&sim.queue_lock);
    CUresult result =
        s->capture != NULL ? graph_spoil(s->capture) : stream_wait_done(s, s->submitted);
    if (s == s->context->null_stream) /* the null stream stands for the blocking ones as well */
        for (struct CUstream_st *other = streams; other != NULL && result == CUDA_SUCCESS;
             other = other->next)
            if (other->context == s->context && !(other->flags & CU_STREAM_NON_BLOCKING))
                result = stream_wait_done(other, other->submitted);
    pthread_mutex_unlock(&sim.queue_lock);
    return result;
}

CUresult sim_wait_context(CUcontext context) {
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&sim.queue_lock);
    for (struct CUstream_st *s = streams; s != NULL && result == CUDA_SUCCESS; s = s->next)
        if (s->context == context)
            result = stream_wait_done(s, s->submitted);
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
    *stream = sim_stream_new(context, flags, priority);
    return *stream == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
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
