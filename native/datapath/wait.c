/* poll(2) of what a thread reads and its doorbell; see wait.h. */
#include "wait.h"
#include <poll.h>
#include <stdint.h>
#include <unistd.h>

enum wait wait_for(int tun, int udp, int wake, int timeout_ms)
{
	struct pollfd fds[3] = { { .fd = wake, .events = POLLIN },
				 { .fd = tun, .events = POLLIN },
				 { .fd = udp, .events = POLLIN } };

	if (poll(fds, 3, timeout_ms) <= 0)
		return WAIT_RUNG;
	if (fds[0].revents & POLLIN) {
		uint64_t rings;
		/* The count is of no interest, and losing the race for it means somebody else silenced the bell. */
		if (read(wake, &rings, sizeof rings) < 0)
			return WAIT_RUNG;
	}
	if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL))
		return WAIT_BROKEN;
	/* An error of the socket is one of a peer: the next receive reports and clears it. */
	return fds[1].revents != 0 || fds[2].revents != 0 ? WAIT_READY : WAIT_RUNG;
}
