/* Sleeping until a descriptor is readable, the doorbell rings or time is up. */
#ifndef TARTAN_WAIT_H
#define TARTAN_WAIT_H

enum wait {
	WAIT_READY,  /* readable */
	WAIT_RUNG,   /* the doorbell rang (and was silenced), time is up, or a signal came: look at the words again */
	WAIT_BROKEN, /* error or hang-up on the descriptor: it would not let poll(2) sleep */
};

/* `fd` -1 waits for the doorbell alone. */
enum wait wait_for(int fd, int wake, int timeout_ms);

#endif
