/*
 * The forwarding threads; see threads.h. Each lane has a TX thread and an RX thread. Where the kernel steers flows, one
 * more thread serves the sparse flows in both directions: it is still awake when the reply to a packet arrives. Where
 * there are several lanes the last is for dense flows (layout.h).
 */
#include "threads.h"
#include "offload.h"
#include "path-mtu.h"
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The shortest slice that the scheduler grants. */
#define SLICE_NS 100000
/*
 * Added to the nice value of the threads for dense flows, which then get a third of the time of another thread: the
 * sender of a flood does not pay for what we do with it, so its flood must not take what other flows need. Nice values
 * are compared within a control group or a session, and the data process has one of its own.
 */
#define DENSE_NICE 5
#define NICE_MAX 19

static void open_thread(struct threads *threads, size_t i, const struct options *o, const struct shared_files *files)
{
	static const char *const names[] = { [ROLE_TX] = "tx", [ROLE_RX] = "rx", [ROLE_SPARSE] = "sparse" };
	const size_t lanes = options_lanes(o);
	struct thread *t = &threads->thread[i];
	struct thread *sparse = o->tun.count > 1 ? &threads->thread[2 * lanes] : NULL;
	const size_t queue = i == 2 * lanes ? lanes : i % lanes;

	t->threads = threads;
	t->is_dense = lanes > 1 && queue == lanes - 1;
	t->role = i < lanes ? ROLE_TX : i < 2 * lanes ? ROLE_RX : ROLE_SPARSE;
	snprintf(t->name, sizeof t->name, "tartan-%s%zu", names[t->role], queue % 10);
	t->worker = (struct worker){
		.file = files->routes,
		.counters = files->counters,
		.block = &files->counters->thread[i],
		.tun = o->tun.fd[queue],
		.udp = o->udp.fd[queue],
		.wake = o->wake.fd[i],
		.path_mtu = t->role != ROLE_RX ? path_mtu_open(o->udp.fd[queue]) : -1,
		.features = threads->features,
		.limiter = &threads->limiter,
		.prober = &threads->prober,
		.buffers = t->worker.buffers,
	};
	/* The thread that takes the answers of a peer asks it, too, and measures how long they take. */
	t->worker.asks = sparse != NULL ? t == sparse : i == lanes;
	if (t->worker.asks && t->worker.path_mtu < 0)
		t->worker.path_mtu = path_mtu_open(o->udp.fd[queue]);
	if (t == sparse) {
		turns_open(&threads->sparse_tx, t->worker.tun, SPARSE_WAITING_MAX / TX_BUDGET);
		turns_open(&threads->sparse_rx, t->worker.udp, SPARSE_WAITING_MAX / RX_BUDGET);
	}
	if (t->role != ROLE_RX)
		lane_port_open(&t->worker.lane_port, t->worker.udp);
	tx_open(&t->tx, &t->worker, sparse == NULL ? NULL : &threads->sparse_tx, t == sparse);
	rx_open(&t->rx, &t->worker, sparse == NULL ? NULL : &threads->sparse_rx, t == sparse);
	/*
	 * The counters continue from the process before this one. The generation it had adopted is not ours: while this
	 * thread reports 0, tartand rewrites no slot.
	 */
	atomic_store(&t->worker.block->generation, 0);
	atomic_store(&t->worker.block->running, 0);
}

int threads_prepare(struct threads *threads, const struct options *o, const struct shared_files *files,
		    const char **step)
{
	*step = "threads";
	threads->count = o->wake.count;
	limiter_open(&threads->limiter);
	threads->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (threads->done < 0)
		return errno;
	threads->features = offload_open(&o->tun, &o->udp, &threads->refused);
	if (o->tun.count > 1)
		threads->features |= FEATURE(sparse_apart);
	int err = pthread_barrier_init(&threads->start_barrier, NULL, (unsigned int)threads->count + 1);
	if (err == 0)
		err = prober_open(&threads->prober);
	for (size_t i = 0; i < threads->count && err == 0; i++) {
		err = buffers_open(&threads->thread[i].worker.buffers);
		if (err == 0)
			open_thread(threads, i, o, files);
	}
	/* The first thread reads a TUN queue. If it has no path MTU socket, no other thread has one. */
	if (threads->thread[0].worker.path_mtu >= 0)
		threads->features |= FEATURE(path_mtu);
	return err;
}

/*
 * The scheduler of kernel 6.12 runs a thread sooner when the thread asks for short slices (sched_setattr(2):
 * sched_runtime of SCHED_OTHER). Older kernels ignore the value. The sparse thread works for microseconds at a time.
 */
static void set_schedule(const struct thread *t)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime_ns, deadline_ns, period_ns;
	} attributes = { .size = 48, .policy = SCHED_OTHER };

	attributes.nice = getpriority(PRIO_PROCESS, 0);
	if (t->role == ROLE_SPARSE)
		attributes.runtime_ns = SLICE_NS;
	else if (t->is_dense)
		attributes.nice = attributes.nice + DENSE_NICE < NICE_MAX ? attributes.nice + DENSE_NICE : NICE_MAX;
	else
		return;
	/* Forwarding works without it too. */
	if (syscall(SYS_sched_setattr, 0, &attributes, 0) < 0)
		return;
}

static void *thread_main(void *argument)
{
	struct thread *t = argument;
	struct thread_block *block = t->worker.block;
	const uint64_t one = 1;

	prctl(PR_SET_NAME, t->name, 0, 0, 0);
	set_schedule(t);
	pthread_barrier_wait(&t->threads->start_barrier); /* threads_start(): the thread exists */
	pthread_barrier_wait(&t->threads->start_barrier); /* threads_release(): the system call filter is in place */
	atomic_store(&block->running, 1);
	loop_run(&t->worker, t->role == ROLE_RX ? NULL : &t->tx, t->role == ROLE_TX ? NULL : &t->rx);
	atomic_store(&block->running, 0);
	/* This write cannot fail. If it did, the process would stay, and tartand would replace it. */
	if (write(t->threads->done, &one, sizeof one) < 0)
		return NULL;
	return NULL;
}

int threads_start(struct threads *threads)
{
	for (size_t i = 0; i < threads->count; i++) {
		int err = pthread_create(&threads->thread[i].id, NULL, thread_main, &threads->thread[i]);
		if (err != 0)
			return err;
	}
	pthread_barrier_wait(&threads->start_barrier);
	return 0;
}

void threads_release(struct threads *threads)
{
	pthread_barrier_wait(&threads->start_barrier);
}

void threads_join(struct threads *threads)
{
	for (size_t i = 0; i < threads->count; i++)
		pthread_join(threads->thread[i].id, NULL);
}
