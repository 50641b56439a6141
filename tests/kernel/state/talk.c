/*
 * Talks to a client without end: answers what comes over TCP (port 7001) and UDP (7002) with the same, and counts
 * aloud, one number each millisecond, on connections of its own to the addresses that it is given (port 7100).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 32
static struct pollfd fds[MOST];
static int count;

static int listening(int kind, int port)
{
	struct sockaddr_in6 at = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int one = 1, fd = socket(AF_INET6, kind, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || (kind == SOCK_STREAM && listen(fd, 8)))
		exit(2);
	fds[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	return fd;
}

static int connected(const char *to)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(7100) };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(7100) };
	int one = 1, fd, failed;

	if (inet_pton(AF_INET, to, &four.sin_addr) == 1) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		failed = connect(fd, (struct sockaddr *)&four, sizeof(four));
	} else {
		inet_pton(AF_INET6, to, &six.sin6_addr);
		fd = socket(AF_INET6, SOCK_STREAM, 0);
		failed = connect(fd, (struct sockaddr *)&six, sizeof(six));
	}
	if (failed)
		exit(3);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void echo(int at)
{
	char buffer[4096];
	ssize_t got = read(fds[at].fd, buffer, sizeof(buffer));

	if (got <= 0) {
		close(fds[at].fd);
		fds[at] = fds[--count];
		return;
	}
	if (write(fds[at].fd, buffer, got) != got)
		exit(4);
}

int main(int argc, char **argv)
{
	int streams[8], outgoing = 0, one = 1;
	uint64_t number[8] = { 0 };
	int tcp = listening(SOCK_STREAM, 7001), udp = listening(SOCK_DGRAM, 7002);
	size_t size = argc > 1 ? (size_t)atoi(argv[1]) << 20 : 0;
	char *held = malloc(size + 1);

	for (size_t at = 0; at < size; at += 64)
		held[at] = (char)rand();
	signal(SIGPIPE, SIG_IGN);
	for (int i = 2; i < argc && outgoing < 8; i++)
		streams[outgoing++] = connected(argv[i]);
	if (daemon(0, 0))
		return 5;
	for (;;) {
		poll(fds, count, 1);
		for (int i = 0; i < outgoing; i++)
			if (write(streams[i], &number[i], sizeof(number[i])) == sizeof(number[i]))
				number[i]++;
			else if (errno != EAGAIN)
				exit(6);
		for (int i = count - 1; i >= 0; i--) {
			if (!(fds[i].revents & (POLLIN | POLLHUP | POLLERR)))
				continue;
			if (fds[i].fd == tcp && count < MOST) {
				int fd = accept(tcp, NULL, NULL);

				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				fds[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
			} else if (fds[i].fd == udp) {
				struct sockaddr_in6 from;
				socklen_t length = sizeof(from);
				char buffer[64];
				ssize_t got = recvfrom(udp, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &length);

				if (got > 0)
					sendto(udp, buffer, got, 0, (struct sockaddr *)&from, length);
			} else {
				echo(i);
			}
		}
	}
}
