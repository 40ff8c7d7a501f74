/*
 * appender - append records to a shared file for some seconds, as programs do
 *
 * usage: appender METHOD TARGET WRITER SECONDS BARRIER
 *
 *   METHOD   open         open with O_APPEND, write, close for each record
 *            fsync        descriptor held open, fsync after each record
 *            held         descriptor held open, one fsync after the last record
 *            fcntl-open   open, lockf, seek to the end, write, unlock, close for each
 *            fcntl-held   the same with the descriptor held open
 *            liblockfile  lockfile_create, open, write, close, lockfile_remove for each
 *            tcp          send it to logserver, and wait for the answer
 *   TARGET   the file; for tcp ADDRESS:PORT
 *   WRITER   this writer's name, which its records bear
 *   BARRIER  a directory: the file WRITER is made there when all is prepared, and appending
 *            begins when somebody makes the file `go`
 *
 * Prints one line at the end:
 *
 *   WRITER RECORDS TIMELY TOOK LONGEST
 *
 *   RECORDS  appends that have succeeded; the records are numbered from 1
 *   TIMELY   how many of them were done when the seconds were over
 *   TOOK     seconds from the start until all was done, with the last fsync and close
 *   LONGEST  seconds of the longest append; of the last fsync and close, if that took longer
 *
 * Exit status 1: an append has failed, as standard error says; none is begun after it.
 */

#include "record.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <lockfile.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* After 5, 10, 15 ... 60 s, which is longer than anybody measures. */
#define LOCKFILE_RETRIES 12

/* How long the others may take to get ready. */
#define BARRIER_SECONDS 120

static const char *target;
static char lock_name[4096];
static int held = -1; /* the descriptor or connection that stays open */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* All of these give 0, or -1 with errno. */

static int write_whole(int fd, const char *record)
{
	ssize_t n = write(fd, record, RECORD_SIZE);
	if (n >= 0 && n != RECORD_SIZE) {
		/* Half a record cannot be taken back, and is no success. */
		errno = EIO;
		return -1;
	}
	return n < 0 ? -1 : 0;
}

static int close_after(int fd, int result)
{
	int error = errno;
	if (close(fd) < 0 && result == 0)
		return -1;
	errno = error;
	return result;
}

static int append_open(const char *record)
{
	int fd = open(target, O_WRONLY | O_APPEND);
	if (fd < 0)
		return -1;
	return close_after(fd, write_whole(fd, record));
}

static int append_held(const char *record) { return write_whole(held, record); }

static int append_fsync(const char *record)
{
	return write_whole(held, record) < 0 || fsync(held) < 0 ? -1 : 0;
}

static int append_locked(int fd, const char *record)
{
	/* The whole file, wherever the position is. */
	if (lseek(fd, 0, SEEK_SET) < 0 || lockf(fd, F_LOCK, 0) < 0)
		return -1;
	int result = lseek(fd, 0, SEEK_END) < 0 ? -1 : write_whole(fd, record);
	int error = errno;
	/* An NFS client sends what was written before it gives the lock up. */
	if (lseek(fd, 0, SEEK_SET) < 0 || lockf(fd, F_ULOCK, 0) < 0)
		return -1;
	errno = error;
	return result;
}

static int append_fcntl_held(const char *record) { return append_locked(held, record); }

static int append_fcntl_open(const char *record)
{
	int fd = open(target, O_RDWR);
	if (fd < 0)
		return -1;
	return close_after(fd, append_locked(fd, record));
}

static int append_liblockfile(const char *record)
{
	if (lockfile_create(lock_name, LOCKFILE_RETRIES, 0) != L_SUCCESS) {
		if (errno == 0)
			errno = EAGAIN;
		return -1;
	}
	int result = append_open(record), error = errno;
	if (lockfile_remove(lock_name) < 0)
		return -1;
	errno = error;
	return result;
}

static int append_tcp(const char *record)
{
	char answer;
	if (write_whole(held, record) < 0)
		return -1;
	ssize_t n = read(held, &answer, 1);
	if (n == 0)
		errno = ECONNRESET;
	return n == 1 ? 0 : -1;
}

static int open_appending(void)
{
	held = open(target, O_WRONLY | O_APPEND);
	return held < 0 ? -1 : 0;
}

static int open_locking(void)
{
	held = open(target, O_RDWR);
	return held < 0 ? -1 : 0;
}

static int connect_to_server(void)
{
	char address[64];
	const char *colon = strrchr(target, ':');
	struct sockaddr_in to = { .sin_family = AF_INET };
	int one = 1;
	if (colon == NULL || colon - target >= (long)sizeof address) {
		errno = EINVAL;
		return -1;
	}
	memcpy(address, target, colon - target);
	address[colon - target] = 0;
	to.sin_port = htons(atoi(colon + 1));
	if (inet_pton(AF_INET, address, &to.sin_addr) != 1) {
		errno = EINVAL;
		return -1;
	}
	held = socket(AF_INET, SOCK_STREAM, 0);
	if (held < 0 || connect(held, (struct sockaddr *)&to, sizeof to) < 0)
		return -1;
	return setsockopt(held, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int nothing(void) { return 0; }

static int name_lock(void)
{
	if (snprintf(lock_name, sizeof lock_name, "%s.lock", target) >= (int)sizeof lock_name) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return 0;
}

static int close_held(void) { return close(held); }

static int fsync_and_close(void) { return fsync(held) < 0 ? -1 : close(held); }

static const struct method {
	const char *name;
	int (*prepare)(void);
	int (*append)(const char *record);
	int (*finish)(void);
} methods[] = {
	{ "open", nothing, append_open, nothing },
	{ "fsync", open_appending, append_fsync, close_held },
	{ "held", open_appending, append_held, fsync_and_close },
	{ "fcntl-open", nothing, append_fcntl_open, nothing },
	{ "fcntl-held", open_locking, append_fcntl_held, close_held },
	{ "liblockfile", name_lock, append_liblockfile, nothing },
	{ "tcp", connect_to_server, append_tcp, close_held },
	{ NULL, NULL, NULL, NULL },
};

static void pass_barrier(const char *barrier, const char *writer)
{
	char path[4096];
	double end = now() + BARRIER_SECONDS;
	snprintf(path, sizeof path, "%s/%s", barrier, writer);
	int fd = open(path, O_WRONLY | O_CREAT, 0666);
	if (fd < 0) {
		fprintf(stderr, "appender: cannot make %s: %s\n", path, strerror(errno));
		exit(2);
	}
	close(fd);
	snprintf(path, sizeof path, "%s/go", barrier);
	while (access(path, F_OK) < 0) {
		if (now() > end) {
			fprintf(stderr, "appender: %s was not made in time\n", path);
			exit(2);
		}
		usleep(5000);
	}
}

static void wake_up(int signal) { (void)signal; }

/*
 * Whoever sleeps in lockfile_create when the time is over would sleep on for up to a minute.
 * From then on, therefore, a signal cuts every sleep short, so that its tries run out.
 */
static void stop_sleeping_after(double seconds)
{
	struct sigaction action = { .sa_handler = wake_up, .sa_flags = SA_RESTART };
	struct itimerval timer = { .it_interval.tv_usec = 5000 };
	timer.it_value.tv_sec = (long)seconds;
	timer.it_value.tv_usec = (long)((seconds - (long)seconds) * 1e6) + 1;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

int main(int argc, char **argv)
{
	char record[RECORD_SIZE];
	unsigned long records = 0, timely = 0;
	double longest = 0, begin, start, end, done;
	int status = 0;

	if (argc != 6 || strlen(argv[3]) > NAME_SIZE || atof(argv[4]) <= 0) {
		fprintf(stderr, "usage: appender METHOD TARGET WRITER SECONDS BARRIER\n");
		return 2;
	}
	const char *writer = argv[3];
	double seconds = atof(argv[4]);
	const struct method *method = methods;
	while (method->name != NULL && strcmp(method->name, argv[1]) != 0)
		method++;
	if (method->name == NULL) {
		fprintf(stderr, "appender: there is no method %s\n", argv[1]);
		return 2;
	}
	target = argv[2];
	signal(SIGPIPE, SIG_IGN);
	if (method->prepare() < 0) {
		fprintf(stderr, "appender: %s: cannot open %s: %s\n", writer, target, strerror(errno));
		return 2;
	}
	pass_barrier(argv[5], writer);
	start = done = now();
	end = start + seconds;
	if (method->append == append_liblockfile)
		stop_sleeping_after(seconds);
	while (done < end) {
		begin = done;
		record_render(record, writer, records + 1);
		errno = 0;
		int failed = method->append(record) < 0, error = errno;
		done = now();
		if (done - begin > longest)
			longest = done - begin;
		if (failed) {
			/* No lock when the time is over is no failure. */
			if (method->append == append_liblockfile && done >= end)
				break;
			fprintf(stderr, "appender: %s: record %lu on %s: %s\n", writer, records + 1,
				target, strerror(error));
			status = 1;
			break;
		}
		records++;
		if (done <= end)
			timely = records;
	}
	begin = now();
	if (method->finish() < 0) {
		fprintf(stderr, "appender: %s: closing %s: %s\n", writer, target, strerror(errno));
		status = 1;
	}
	done = now();
	if (done - begin > longest)
		longest = done - begin;
	printf("%s %lu %lu %.6f %.6f\n", writer, records, timely, done - start, longest);
	return status;
}
