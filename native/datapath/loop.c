/* See loop.h. */
#include "loop.h"
#include "turn.h"
#include "wait.h"

/* How long a thread sleeps at most: the header words are looked at again then, also when a doorbell was lost. */
#define IDLE_MS 1000

static enum turn take_turn(struct worker *w, struct tx *tx, struct rx *rx, enum progress *sent, enum progress *received)
{
	*sent = *received = PROGRESS_NONE;
	pthread_mutex_lock(&w->lock);
	enum turn turn = turn_begin(w);
	if (turn == TURN_FORWARD && tx != NULL)
		*sent = tx_turn(tx);
	if (turn == TURN_FORWARD && rx != NULL)
		*received = rx_turn(rx);
	pthread_mutex_unlock(&w->lock);
	return turn;
}

void loop_run(struct worker *w, struct tx *tx, struct rx *rx)
{
	const int tun = tx != NULL ? w->tun : -1, udp = rx != NULL ? w->udp : -1;
	enum progress sent, received;
	enum turn turn;

	while ((turn = take_turn(w, tx, rx, &sent, &received)) != TURN_STOP) {
		if (turn == TURN_PARKED)
			wait_for(-1, -1, w->wake, IDLE_MS);
		else if (sent == PROGRESS_BROKEN || received == PROGRESS_BROKEN)
			wait_for(-1, -1, w->wake, BROKEN_MS);
		else if (sent == PROGRESS_NONE && received == PROGRESS_NONE &&
			 wait_for(tun, udp, w->wake, IDLE_MS) == WAIT_BROKEN)
			wait_for(-1, -1, w->wake, BROKEN_MS);
	}
}
