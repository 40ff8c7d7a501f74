/*
 * logserver - what people would write instead: one process that appends what it is sent
 *
 * usage: logserver PORT FILE CLIENTS READY
 *
 *   CLIENTS  ends when this many have come and all have gone
 *   READY    a file that is made when connections are accepted
 *
 * Whatever records have arrived are written with one write, made durable with one fsync, and
 * answered with one byte for each.
 */

#include "record.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_CLIENTS 256

struct client {
	char record[RECORD_SIZE];
	int have; /* bytes of the record that is arriving */
};

/* The first place is that of the socket which clients connect to. */
static struct pollfd polled[MOST_CLIENTS + 1];
static struct client clients[MOST_CLIENTS + 1];
static int used = 1;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void listen_on(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, MOST_CLIENTS) < 0)
		fail("logserver: cannot listen");
	polled[0] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

static void greet(void)
{
	int one = 1, fd = accept(polled[0].fd, NULL, NULL);
	if (fd < 0)
		fail("logserver: accept");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	polled[used] = (struct pollfd){ .fd = fd, .events = POLLIN };
	clients[used++].have = 0;
}

int main(int argc, char **argv)
{
	static char batch[MOST_CLIENTS * RECORD_SIZE];
	static int answers[MOST_CLIENTS];

	if (argc != 5 || atoi(argv[3]) < 1 || atoi(argv[3]) > MOST_CLIENTS) {
		fprintf(stderr, "usage: logserver PORT FILE CLIENTS READY (at most %d clients)\n",
			MOST_CLIENTS);
		return 2;
	}
	int log = open(argv[2], O_WRONLY | O_APPEND | O_CREAT, 0666);
	if (log < 0)
		fail(argv[2]);
	listen_on(atoi(argv[1]));
	int ready = open(argv[4], O_WRONLY | O_CREAT, 0666);
	if (ready < 0)
		fail(argv[4]);
	close(ready);
	for (int to_come = atoi(argv[3]); to_come > 0 || used > 1;) {
		int whole = 0;
		polled[0].events = to_come > 0 ? POLLIN : 0;
		if (poll(polled, used, -1) < 0)
			fail("logserver: poll");
		for (int i = used - 1; i > 0; i--) {
			struct client *client = &clients[i];
			if (polled[i].revents == 0)
				continue;
			ssize_t n = read(polled[i].fd, client->record + client->have,
					 RECORD_SIZE - client->have);
			if (n <= 0) {
				/* The last one takes its place; it was looked at before. */
				close(polled[i].fd);
				polled[i] = polled[--used];
				clients[i] = clients[used];
				continue;
			}
			client->have += n;
			if (client->have == RECORD_SIZE) {
				memcpy(batch + whole * RECORD_SIZE, client->record, RECORD_SIZE);
				answers[whole++] = polled[i].fd;
				client->have = 0;
			}
		}
		if (polled[0].revents & POLLIN) {
			greet();
			to_come--;
		}
		if (whole == 0)
			continue;
		if (write(log, batch, whole * RECORD_SIZE) != whole * RECORD_SIZE || fsync(log) < 0)
			fail("logserver: write");
		for (int i = 0; i < whole; i++)
			/* Who has gone meanwhile is seen at the next read. */
			(void)!send(answers[i], "+", 1, MSG_NOSIGNAL);
	}
	return 0;
}
