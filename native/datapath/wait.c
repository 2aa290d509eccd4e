/* poll(2) of one descriptor and a doorbell; see wait.h. */
#include "wait.h"
#include <poll.h>
#include <stdint.h>
#include <unistd.h>

enum wait wait_for(int fd, int wake, int timeout_ms)
{
	struct pollfd fds[2] = { { .fd = wake, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

	if (poll(fds, 2, timeout_ms) <= 0)
		return WAIT_RUNG;
	if (fds[0].revents & POLLIN) {
		uint64_t rings;
		/* The count is of no interest, and losing the race for it means somebody else silenced the bell. */
		if (read(wake, &rings, sizeof rings) < 0)
			return WAIT_RUNG;
	}
	if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL))
		return WAIT_BROKEN;
	return fds[1].revents & POLLIN ? WAIT_READY : WAIT_RUNG;
}
