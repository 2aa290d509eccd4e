/*
 * Threads of the data process; see crew.h. Today one thread reads each TUN queue and one reads each socket; a queue
 * more is a thread more, nothing else changes.
 */
#include "crew.h"
#include "offload.h"
#include "path-mtu.h"
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

static void set_up(struct crew *c, size_t i, const struct options *o, const struct shared_files *files)
{
	struct crew_member *m = &c->member[i];
	bool is_tx = i < o->tun.count;
	size_t queue = is_tx ? i : i - o->tun.count;

	m->crew = c;
	m->loop = is_tx ? loop_tx : loop_rx;
	snprintf(m->name, sizeof m->name, "tartan-%s%zu", is_tx ? "tx" : "rx", queue % 10);
	m->worker = (struct worker){
		.file = files->routes,
		.block = &files->counters->thread[i],
		.tun = o->tun.fd[queue % o->tun.count],
		.udp = o->udp.fd[queue % o->udp.count],
		.wake = o->wake.fd[i],
		.path_mtu = is_tx ? path_mtu_open(o->udp.fd[queue % o->udp.count]) : -1,
		.features = c->features,
	};
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
	int err = pthread_barrier_init(&c->gate, NULL, (unsigned int)c->count + 1);
	for (size_t i = 0; i < c->count && err == 0; i++) {
		set_up(c, i, o, files);
		err = batch_open(&c->member[i].worker.batch);
	}
	/* The first member reads a TUN queue; where one has no such socket, it is not the only one. */
	if (c->member[0].worker.path_mtu >= 0)
		c->features |= FEATURE(path_mtu);
	return err;
}

static void *run(void *argument)
{
	struct crew_member *m = argument;
	struct thread_block *block = m->worker.block;
	const uint64_t one = 1;

	prctl(PR_SET_NAME, m->name, 0, 0, 0);
	pthread_barrier_wait(&m->crew->gate); /* crew_start: the thread stands */
	pthread_barrier_wait(&m->crew->gate); /* crew_release: the process is sealed */
	atomic_store(&block->running, 1);
	m->loop(&m->worker);
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
