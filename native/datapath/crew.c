/*
 * Threads of the data process; see crew.h. Each lane has one that sends and one that receives; where the kernel steers
 * flows, one more serves the sparse ones in both directions, because their answers come when it is still awake.
 */
#include "crew.h"
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

/* The least that the scheduler grants. */
#define SLICE_NS 100000

static void set_up(struct crew *c, size_t i, const struct options *o, const struct shared_files *files)
{
	static const char *const names[] = { [SENDS] = "tx", [RECEIVES] = "rx", [SPARSE] = "sparse" };
	const size_t lanes = options_lanes(o);
	struct crew_member *m = &c->member[i];
	struct crew_member *sparse = o->tun.count > 1 ? &c->member[2 * lanes] : NULL;
	const size_t queue = i == 2 * lanes ? lanes : i % lanes;

	m->crew = c;
	m->work = i < lanes ? SENDS : i < 2 * lanes ? RECEIVES : SPARSE;
	snprintf(m->name, sizeof m->name, "tartan-%s%zu", names[m->work], queue % 10);
	m->worker = (struct worker){
		.file = files->routes,
		.block = &files->counters->thread[i],
		.tun = o->tun.fd[queue],
		.udp = o->udp.fd[queue],
		.wake = o->wake.fd[i],
		.path_mtu = m->work != RECEIVES ? path_mtu_open(o->udp.fd[queue]) : -1,
		.features = c->features,
		.batch = m->worker.batch,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	tx_open(&m->tx, &m->worker, m == sparse || sparse == NULL ? NULL : &sparse->tx);
	rx_open(&m->rx, &m->worker, m == sparse || sparse == NULL ? NULL : &sparse->rx);
	/*
	 * Counters go on where a process before this one stopped, but what it had adopted is not what we have: until
	 * this thread reports, no slot may be rewritten.
	 */
	atomic_store(&m->worker.block->generation, 0);
	atomic_store(&m->worker.block->running, 0);
}

int crew_prepare(struct crew *c, const struct options *o, const struct shared_files *files, const char **step)
{
	*step = "threads";
	c->count = o->wake.count;
	c->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->done < 0)
		return errno;
	c->features = offload_open(&o->tun, &o->udp);
	if (o->tun.count > 1)
		c->features |= FEATURE(sparse_apart);
	int err = pthread_barrier_init(&c->gate, NULL, (unsigned int)c->count + 1);
	for (size_t i = 0; i < c->count && err == 0; i++) {
		err = batch_open(&c->member[i].worker.batch);
		if (err == 0)
			set_up(c, i, o, files);
	}
	/* The first member reads a TUN queue; where one has no such socket, it is not the only one. */
	if (c->member[0].worker.path_mtu >= 0)
		c->features |= FEATURE(path_mtu);
	return err;
}

/*
 * A thread that works for microseconds at a time gets a processor at once when it asks the scheduler for little
 * (sched_setattr(2), kernel 6.12: sched_runtime of SCHED_OTHER; older kernels look away).
 */
static void ask_for_short_slices(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime_ns, deadline_ns, period_ns;
	} attributes = { .size = 48, .policy = SCHED_OTHER, .runtime_ns = SLICE_NS };

	attributes.nice = getpriority(PRIO_PROCESS, 0);
	/* Nothing depends on it. */
	if (syscall(SYS_sched_setattr, 0, &attributes, 0) < 0)
		return;
}

static void *run(void *argument)
{
	struct crew_member *m = argument;
	struct thread_block *block = m->worker.block;
	const uint64_t one = 1;

	prctl(PR_SET_NAME, m->name, 0, 0, 0);
	if (m->work == SPARSE)
		ask_for_short_slices();
	pthread_barrier_wait(&m->crew->gate); /* crew_start: the thread stands */
	pthread_barrier_wait(&m->crew->gate); /* crew_release: the process is sealed */
	atomic_store(&block->running, 1);
	loop_run(&m->worker, m->work == RECEIVES ? NULL : &m->tx, m->work == SENDS ? NULL : &m->rx);
	atomic_store(&block->running, 0);
	/* An eventfd takes this; if it could not, the process would stay and be replaced by its starter. */
	if (write(m->crew->done, &one, sizeof one) < 0)
		return NULL;
	return NULL;
}

int crew_start(struct crew *c)
{
	for (size_t i = 0; i < c->count; i++) {
		int err = pthread_create(&c->member[i].thread, NULL, run, &c->member[i]);
		if (err != 0)
			return err;
	}
	pthread_barrier_wait(&c->gate);
	return 0;
}

void crew_release(struct crew *c)
{
	pthread_barrier_wait(&c->gate);
}

void crew_join(struct crew *c)
{
	for (size_t i = 0; i < c->count; i++)
		pthread_join(c->member[i].thread, NULL);
}
