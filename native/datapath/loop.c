/* See loop.h. */
#include "loop.h"
#include "control.h"
#include "prober.h"
#include <poll.h>
#include <unistd.h>

/*
 * The longest sleep of a thread. It reads the control words after it even when a doorbell was lost, and tartand was gone:
 * else that rings each ten seconds.
 */
#define IDLE_MS 15000
/* Of a thread that waits for its MTU: a handover does not wait longer for it. */
#define PAUSED_MS 1000

/* What may have something to read. */
struct ready {
	bool tun;
	bool udp;
};
static const struct ready both = { true, true };

/*
 * Sleeps until one of the descriptors is readable, the doorbell rings, a signal comes or time is up. -1 is a descriptor
 * that is not waited for. False after an error or a hang-up on the TUN, which would not let poll(2) sleep. A read of what
 * is not ready costs a system call between a packet and its way on.
 */
static bool wait_for(int tun, int udp, int wake, int timeout_ms, struct ready *ready)
{
	struct pollfd fds[3] = { { .fd = wake, .events = POLLIN },
				 { .fd = tun, .events = POLLIN },
				 { .fd = udp, .events = POLLIN } };
	uint64_t rings;

	*ready = both;
	if (poll(fds, 3, timeout_ms) <= 0)
		return true;
	*ready = (struct ready){ .tun = fds[1].revents != 0, .udp = fds[2].revents != 0 };
	/* Reading silences the doorbell. If another process has read it before, it is silent already. */
	if ((fds[0].revents & POLLIN) && read(wake, &rings, sizeof rings) < 0)
		return true;
	/* An error on the socket is that of one peer. The next receive reports and clears it. */
	return (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL)) == 0;
}

static enum control poll_worker(struct worker *w, struct tx *tx, struct rx *rx, enum progress *sent,
				enum progress *received)
{
	*sent = *received = PROGRESS_NONE;
	enum control control = control_poll(w);
	control_answer(w);
	if (control == CONTROL_FORWARD && tx != NULL)
		*sent = tx_poll(tx);
	if (control == CONTROL_FORWARD && rx != NULL)
		*received = rx_poll(rx);
	if (control == CONTROL_FORWARD && w->asks)
		prober_ask(w);
	return control;
}

static int idle_ms(const struct worker *w)
{
	return w->asks ? prober_sleep_ms(w, IDLE_MS) : IDLE_MS;
}

void loop_run(struct worker *w, struct tx *tx, struct rx *rx)
{
	const int tun = tx != NULL ? w->tun : -1, udp = rx != NULL ? w->udp : -1;
	struct ready ready = both, none;
	enum progress sent, received;
	enum control control;

	while ((control = poll_worker(w, ready.tun ? tx : NULL, ready.udp ? rx : NULL, &sent, &received)) != CONTROL_STOP) {
		ready = both;
		if (control == CONTROL_PAUSED)
			wait_for(-1, -1, w->wake, PAUSED_MS, &none);
		else if (sent == PROGRESS_BROKEN || received == PROGRESS_BROKEN)
			wait_for(-1, -1, w->wake, BROKEN_MS, &none);
		else if (sent == PROGRESS_NONE && received == PROGRESS_NONE &&
			 !wait_for(tun, udp, w->wake, idle_ms(w), &ready))
			wait_for(-1, -1, w->wake, BROKEN_MS, &none);
	}
	if (tx != NULL && tx->is_sparse)
		turns_stop(tx->turns);
	if (rx != NULL && rx->is_sparse)
		turns_stop(rx->turns);
}
