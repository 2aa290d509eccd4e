/* Sleeping until the TUN or the socket is readable, the doorbell rings or time is up. */
#ifndef TARTAN_WAIT_H
#define TARTAN_WAIT_H

enum wait {
	WAIT_READY,  /* one of them is readable */
	WAIT_RUNG,   /* the doorbell rang (and was read), time is up, or a signal came: read the control words */
	WAIT_BROKEN, /* error or hang-up on the TUN: it would not let poll(2) sleep */
};

/* A descriptor of -1 is not waited for; the doorbell always is. */
enum wait wait_for(int tun, int udp, int wake, int timeout_ms);

#endif
