/*
 * Sparse flows go first: a lane waits for what came to the sparse queue before it passes on what it has read itself, so
 * that a flow keeps its order when it becomes bulk or dense. The first tests take turns by hand, the others run all three
 * threads of a lane.
 */
#include "lab.h"
#include "test.h"
#include "control.h"
#include <sched.h>
#include <time.h>

#define PROTOCOL 200 /* an unknown protocol, so nothing is merged or checked */
#define ROUNDS 60u
#define EACH 20u

/* Three workers of one lane. They have one table, one peer and one TUN; `sparse` is the worker of sparse flows. */
struct lane {
	struct lab *sparse;
	struct lab *sends;
	struct lab *receives;
	struct turns tx_turns, rx_turns;
	struct tx tx, sparse_tx;
	struct rx rx, sparse_rx;
};

static void loop_none(struct worker *w)
{
	(void)w;
}

/* A lab whose thread has ended: the test polls its worker, or starts a thread with another loop. */
static struct lab *idle_open(void)
{
	struct lab *l = lab_open(loop_none);

	pthread_join(l->thread, NULL);
	return l;
}

static struct lane *lane_open(void)
{
	struct lane *lane = aligned_alloc(_Alignof(struct lane), sizeof *lane);

	if (lane == NULL)
		abort();

	lane->sparse = idle_open();
	lane->sends = idle_open();
	lane->receives = idle_open();
	lane->sends->w->file = lane->receives->w->file = lane->sparse->file;
	/* Both write to one TUN, so that the order of what they write is seen. */
	close(lane->receives->w->tun);
	lane->receives->w->tun = dup(lane->sparse->w->tun);
	turns_open(&lane->tx_turns, lane->sparse->w->tun, SPARSE_WAITING_MAX / TX_BUDGET);
	turns_open(&lane->rx_turns, lane->sparse->w->udp, SPARSE_WAITING_MAX / RX_BUDGET);
	tx_open(&lane->sparse_tx, lane->sparse->w, &lane->tx_turns, true);
	rx_open(&lane->sparse_rx, lane->sparse->w, &lane->rx_turns, true);
	tx_open(&lane->tx, lane->sends->w, &lane->tx_turns, false);
	rx_open(&lane->rx, lane->receives->w, &lane->rx_turns, false);
	return lane;
}

static void *run_sparse(void *argument)
{
	struct lane *lane = argument;

	loop_run(lane->sparse->w, &lane->sparse_tx, &lane->sparse_rx);
	return NULL;
}

static void *run_sends(void *argument)
{
	struct lane *lane = argument;

	loop_run(lane->sends->w, &lane->tx, NULL);
	return NULL;
}

static void *run_receives(void *argument)
{
	struct lane *lane = argument;

	loop_run(lane->receives->w, NULL, &lane->rx);
	return NULL;
}

static void lane_start(struct lane *lane)
{
	if (pthread_create(&lane->sparse->thread, NULL, run_sparse, lane) != 0 ||
	    pthread_create(&lane->sends->thread, NULL, run_sends, lane) != 0 ||
	    pthread_create(&lane->receives->thread, NULL, run_receives, lane) != 0)
		abort();
}

static void lane_close(struct lane *lane)
{
	atomic_store(&lane->sparse->file->drain, 1);
	lab_close(lane->sends);
	lab_close(lane->receives);
	lab_close(lane->sparse);
	free(lane);
}

static struct recipe numbered(uint32_t number, bool leaves)
{
	struct recipe r = {
		.source = leaves ? OURS : THEIRS,
		.destination = leaves ? THEIRS : OURS,
		.protocol = PROTOCOL,
	};

	memcpy(r.payload, &number, sizeof number);
	return r;
}

static void leave(struct lab *through, uint32_t number)
{
	const struct recipe r = numbered(number, true);

	tun_put(through, &r);
}

/* Sends from one socket of the peer to the socket of the worker. */
static void arrive(struct lane *lane, struct lab *through, uint32_t number)
{
	const struct recipe r = numbered(number, false);
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(through->self_port),
				  .sin_addr.s_addr = htonl(SELF_IP) };
	uint8_t bytes[64];
	struct packet p = packet_make(bytes, &r);

	if (sendto(lane->sparse->peer, p.bytes, p.length, 0, (struct sockaddr *)&to, sizeof to) < 0)
		abort();
}

/* Whether the next `count` packets have the numbers from `first` on. */
static bool come_in_order(int fd, size_t before, uint32_t first, uint32_t count)
{
	uint8_t got[256];

	for (uint32_t i = 0; i < count; i++) {
		uint32_t number;
		if (take(fd, got, sizeof got) != (ssize_t)before + 48)
			return false;
		memcpy(&number, got + before + IPV4_HEADER_BYTES, sizeof number);
		if (number != first + i)
			return false;
	}
	return true;
}

static bool leave_in_order(struct lane *lane, uint32_t first, uint32_t count)
{
	return come_in_order(lane->sparse->peer, 0, first, count);
}

static bool arrive_in_order(struct lane *lane, uint32_t first, uint32_t count)
{
	return come_in_order(lane->sparse->tun_outside, VNET_HEADER_BYTES, first, count);
}

#define HELD_NS 200000
/* As long as a lane waits in vain. */
#define WAIT_NS 100000000

/* A sparse queue whose turns the test takes. */
struct hand {
	struct turns turns;
	int queue[2];
	pthread_t thread;
	_Atomic bool passed;
};

static void hand_open(struct hand *h, uint32_t most)
{
	if (pipe(h->queue) < 0)
		abort();
	turns_open(&h->turns, h->queue[0], most);
	atomic_store(&h->passed, false);
}

static void hand_close(struct hand *h)
{
	close(h->queue[0]);
	close(h->queue[1]);
}

static void put(struct hand *h)
{
	if (write(h->queue[1], "x", 1) != 1)
		abort();
}

static void get(struct hand *h)
{
	char byte;

	if (read(h->queue[0], &byte, 1) != 1)
		abort();
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* How long a lane waits. */
static uint64_t waited_ns(struct hand *h)
{
	const uint64_t begin = now_ns();

	turns_wait(&h->turns);
	return now_ns() - begin;
}

static void nobody_waits_for_nothing(struct suite *s)
{
	struct hand h;

	hand_open(&h, 9);
	turns_wait(NULL);
	CHECK(s, waited_ns(&h) < WAIT_NS / 2);
	turns_begin(&h.turns);
	turns_end(&h.turns, true);
	CHECK(s, waited_ns(&h) < WAIT_NS / 2);
	/* Of a thread that has ended. */
	put(&h);
	turns_stop(&h.turns);
	CHECK(s, waited_ns(&h) < WAIT_NS / 2);
	hand_close(&h);
}

/* The thread of the sparse flows gets no processor. */
static void a_lane_gives_up(struct suite *s)
{
	struct hand h;

	hand_open(&h, 9);
	put(&h);
	CHECK(s, waited_ns(&h) >= WAIT_NS / 3);
	get(&h);
	turns_begin(&h.turns);
	CHECK(s, waited_ns(&h) >= WAIT_NS / 3);
	hand_close(&h);
}

static void *pass_on(void *argument)
{
	struct hand *h = argument;
	const struct timespec held = { .tv_nsec = HELD_NS };

	turns_begin(&h->turns);
	get(h);
	nanosleep(&held, NULL);
	atomic_store(&h->passed, true);
	turns_end(&h->turns, true);
	return NULL;
}

/* What was read and not passed on counts, too. The count of the turns overflows meanwhile. */
static void a_lane_waits_for_what_came_before(struct suite *s)
{
	struct hand h;

	hand_open(&h, 9);
	atomic_store(&h.turns.count, UINT32_MAX - 201);
	atomic_store(&h.turns.emptied, UINT32_MAX - 202);
	for (int i = 0; i < 200; i++) {
		atomic_store(&h.passed, false);
		put(&h);
		if (pthread_create(&h.thread, NULL, pass_on, &h) != 0)
			abort();
		uint64_t ns = waited_ns(&h);
		CHECK(s, atomic_load(&h.passed) || ns >= WAIT_NS / 3);
		pthread_join(h.thread, NULL);
	}
	hand_close(&h);
}

static void *never_empty(void *argument)
{
	struct hand *h = argument;

	while (!atomic_load(&h->passed)) {
		turns_begin(&h->turns);
		turns_end(&h->turns, false);
		sched_yield();
	}
	return NULL;
}

/* More comes than the thread of the sparse flows can take: what waited at first is passed on after so many turns. */
static void a_lane_waits_for_no_more_than_that(struct suite *s)
{
	struct hand h;

	hand_open(&h, 9);
	put(&h);
	if (pthread_create(&h.thread, NULL, never_empty, &h) != 0)
		abort();
	const uint32_t before = atomic_load(&h.turns.count);
	uint64_t ns = waited_ns(&h);
	CHECK(s, atomic_load(&h.turns.count) - before >= 18 || ns >= WAIT_NS / 3);
	atomic_store(&h.passed, true);
	pthread_join(h.thread, NULL);
	hand_close(&h);
}

static void sparse_thread_serves_both_directions(struct suite *s)
{
	struct lane *lane = lane_open();

	lane_start(lane);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		leave(lane->sparse, i);
		CHECK(s, leave_in_order(lane, i, 1));
		arrive(lane, lane->sparse, i);
		CHECK(s, arrive_in_order(lane, i, 1));
	}
	/* A packet is counted shortly after it was forwarded. */
	CHECK(s, reaches(lane->sparse, tx_ok, tx_error_other, ROUNDS) && reaches(lane->sparse, rx_ok, rx_error_tun, ROUNDS));
	lane_close(lane);
}

/* In every round one flow each way becomes bulk, and all three threads compete for its packets. */
static void flows_that_become_bulk_keep_their_order(struct suite *s)
{
	struct lane *lane = lane_open();

	lane_start(lane);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint32_t first = round * 2 * EACH;
		for (uint32_t i = 0; i < 2 * EACH; i++) {
			leave(i < EACH ? lane->sparse : lane->sends, first + i);
			arrive(lane, i < EACH ? lane->sparse : lane->receives, first + i);
		}
		/* The flow is silent until the bulk queue has been read. */
		CHECK(s, leave_in_order(lane, first, 2 * EACH));
		CHECK(s, arrive_in_order(lane, first, 2 * EACH));
	}
	lane_close(lane);
}

int main(void)
{
	struct suite s = { .name = "sparse", .random = 21 };

	nobody_waits_for_nothing(&s);
	a_lane_gives_up(&s);
	a_lane_waits_for_what_came_before(&s);
	a_lane_waits_for_no_more_than_that(&s);
	sparse_thread_serves_both_directions(&s);
	flows_that_become_bulk_keep_their_order(&s);
	return suite_end(&s);
}
