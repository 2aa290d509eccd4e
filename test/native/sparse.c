/*
 * Sparse flows go first: a bulk thread forwards what waits of sparse flows before anything that it has read itself, so
 * that a flow keeps its order when it becomes bulk. The first tests poll by hand, the others run all three threads of a
 * lane.
 */
#include "lab.h"
#include "test.h"
#include "control.h"

#define PROTOCOL 200 /* an unknown protocol, so nothing is merged or checked */
/* More than one poll reads, and fewer than the sockets hold. */
#define WAITING 150u
#define BULK 40u
#define ROUNDS 60u
#define EACH 20u

/* Three workers of one lane. They have one table, one peer and one TUN; `sparse` is the worker of sparse flows. */
struct lane {
	struct lab *sparse;
	struct lab *sends;
	struct lab *receives;
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
	struct lane *lane = calloc(1, sizeof *lane);

	lane->sparse = idle_open();
	lane->sends = idle_open();
	lane->receives = idle_open();
	lane->sends->w->file = lane->receives->w->file = lane->sparse->file;
	/* Both write to one TUN, so that the order of what they write is seen. */
	close(lane->receives->w->tun);
	lane->receives->w->tun = dup(lane->sparse->w->tun);
	tx_open(&lane->sparse_tx, lane->sparse->w, NULL);
	rx_open(&lane->sparse_rx, lane->sparse->w, NULL);
	tx_open(&lane->tx, lane->sends->w, &lane->sparse_tx);
	rx_open(&lane->rx, lane->receives->w, &lane->sparse_rx);
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

static void *run_nothing(void *argument)
{
	return argument;
}

/* Starts threads that do nothing, because lab_close() joins one. */
static void lane_stand(struct lane *lane)
{
	if (pthread_create(&lane->sparse->thread, NULL, run_nothing, NULL) != 0 ||
	    pthread_create(&lane->sends->thread, NULL, run_nothing, NULL) != 0 ||
	    pthread_create(&lane->receives->thread, NULL, run_nothing, NULL) != 0)
		abort();
}

/* The threads that poll the sparse worker end before it does. */
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

/* The bulk packets are written first and leave last. */
static void tx_serves_sparse_flows_first(struct suite *s)
{
	struct lane *lane = lane_open();

	for (uint32_t i = 0; i < BULK; i++)
		leave(lane->sends, WAITING + i);
	for (uint32_t i = 0; i < WAITING; i++)
		leave(lane->sparse, i);
	CHECK(s, control_poll(lane->sends->w) == CONTROL_FORWARD);
	CHECK(s, tx_poll(&lane->tx) == PROGRESS_NONE);
	CHECK(s, leave_in_order(lane, 0, WAITING + BULK));
	CHECK(s, count(lane->sparse, tx_ok) == WAITING && count(lane->sends, tx_ok) == BULK);
	lane_stand(lane);
	lane_close(lane);
}

static void rx_serves_sparse_flows_first(struct suite *s)
{
	struct lane *lane = lane_open();

	/* As many as one poll receives. */
	for (uint32_t i = 0; i < RX_BUDGET; i++)
		arrive(lane, lane->receives, WAITING + i);
	for (uint32_t i = 0; i < WAITING; i++)
		arrive(lane, lane->sparse, i);
	CHECK(s, control_poll(lane->receives->w) == CONTROL_FORWARD);
	CHECK(s, rx_poll(&lane->rx) == PROGRESS_MORE);
	CHECK(s, arrive_in_order(lane, 0, WAITING + RX_BUDGET));
	CHECK(s, count(lane->sparse, rx_ok) == WAITING && count(lane->receives, rx_ok) == RX_BUDGET);
	lane_stand(lane);
	lane_close(lane);
}

/* An empty bulk queue must not delay what waits in the sparse one. */
static void serves_them_with_nothing_of_its_own(struct suite *s)
{
	struct lane *lane = lane_open();

	leave(lane->sparse, 0);
	arrive(lane, lane->sparse, 0);
	CHECK(s, control_poll(lane->sends->w) == CONTROL_FORWARD && control_poll(lane->receives->w) == CONTROL_FORWARD);
	CHECK(s, tx_poll(&lane->tx) == PROGRESS_NONE && rx_poll(&lane->rx) == PROGRESS_NONE);
	CHECK(s, leave_in_order(lane, 0, 1) && arrive_in_order(lane, 0, 1));
	lane_stand(lane);
	lane_close(lane);
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

	tx_serves_sparse_flows_first(&s);
	rx_serves_sparse_flows_first(&s);
	serves_them_with_nothing_of_its_own(&s);
	sparse_thread_serves_both_directions(&s);
	flows_that_become_bulk_keep_their_order(&s);
	return suite_end(&s);
}
