/* Holds one kind of state of the kernel for ever: holder KIND [ARGUMENT...]. Says "ready" once it holds it. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define LANDLOCK_CREATE_RULESET 444
#define MPTCP 262

static void say(const char *text) {
    puts(text);
    fflush(stdout);
}

static int need(long result) {
    if (result < 0) {
        say(strerror(errno));
        exit(1);
    }
    return (int)result;
}

static void stay(void) {
    say("ready");
    for (;;)
        pause();
}

/* unshare FLAGS: namespaces of its own. A process namespace begins with a child. */
static void hold_namespaces(int flags) {
    need(unshare(flags));
    if (flags & CLONE_NEWPID && need(fork()) == 0)
        for (;;)
            pause();
}

static void hold_queue(void) { need(mq_open("/held", O_RDWR | O_CREAT, 0600, NULL)); }

/* More groups than 32, or a message that is never read. */
static void hold_netlink(int group) {
    struct sockaddr_nl here = {.nl_family = AF_NETLINK};
    int fd = need(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    need(bind(fd, (void *)&here, sizeof here));
    if (group) {
        need(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group));
        return;
    }
    struct {
        struct nlmsghdr head;
        char rest[16];
    } links = {{.nlmsg_len = sizeof links, .nlmsg_type = 18, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}, {0}};
    need(send(fd, &links, sizeof links, 0));
}

/* A connection that is never accepted. */
static void hold_backlog(void) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    int server = need(socket(AF_INET, SOCK_STREAM, 0)), client = need(socket(AF_INET, SOCK_STREAM, 0));
    need(bind(server, (void *)&here, size));
    need(listen(server, 5));
    need(getsockname(server, (void *)&here, &size));
    need(connect(client, (void *)&here, size));
}

static void hold_watch(const char *path) { need(inotify_add_watch(need(inotify_init()), path, IN_ALL_EVENTS)); }

static void hold_marks(const char *path) {
    int fd = need(fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY));
    need(fanotify_mark(fd, FAN_MARK_ADD, FAN_CREATE | FAN_ONDIR, AT_FDCWD, path));
}

static void hold_perf(void) {
    struct perf_event_attr what = {.type = PERF_TYPE_SOFTWARE, .size = sizeof what, .exclude_kernel = 1};
    need(syscall(SYS_perf_event_open, &what, 0, -1, -1, 0));
}

static void hold_ring(void) {
    char parameters[256] = {0};
    need(syscall(SYS_io_uring_setup, 4, parameters));
}

static void hold_ruleset(void) {
    unsigned long handled = 1;
    need(syscall(LANDLOCK_CREATE_RULESET, &handled, sizeof handled, 0));
}

static void hold_child(int traced) {
    int status, child = need(fork());
    if (child == 0) {
        if (traced)
            ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        for (;;)
            pause();
    }
    need(waitpid(child, &status, WUNTRACED));
    if (traced)
        need(ptrace(PTRACE_CONT, child, 0, 0));
}

/* A file system of a server that never answers, and an open file on it: whoever asks about that waits for ever. */
static void hold_fuse(const char *path) {
    char options[100];
    int fd = need(open("/dev/fuse", O_RDWR));
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    need(mount("silent", path, "fuse", 0, options));
    need(open(path, O_PATH));
}

/* What every kind of program has, and criu saves. */
static void hold_plenty(void) {
    sigset_t none;
    sigemptyset(&none);
    need(socket(AF_PACKET, SOCK_RAW, 0));
    need(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    need(socket(AF_INET, SOCK_DGRAM, 0));
    need(socket(AF_INET6, SOCK_STREAM, 0));
    need(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    need(socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC));
    need(syscall(SYS_pidfd_open, getpid(), 0));
    need(memfd_create("held", 0));
    need(signalfd(-1, &none, 0));
    need(timerfd_create(CLOCK_MONOTONIC, 0));
    need(open("/dev/urandom", O_RDONLY));
    need(open("/proc/self/ns/net", O_RDONLY));
    need(open("/dev/pts/ptmx", O_RDWR | O_NOCTTY));
    hold_watch("/etc");
    hold_watch("/run");
    hold_watch("/sys/fs/cgroup");
    hold_marks("/etc");
    unlink("/tmp/deleted");
    need(open("/tmp/deleted", O_CREAT | O_RDWR, 0600));
    need(unlink("/tmp/deleted"));
    need(mlockall(MCL_CURRENT));
    if (need(fork()) == 0)
        _exit(0);
    /* What systemd gives its services: parts of the root shown once more, in a mount namespace of their own. */
    need(unshare(CLONE_NEWNS));
    need(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
    need(mount("/etc", "/etc", NULL, MS_BIND, NULL));
    need(mount(NULL, "/etc", NULL, MS_BIND | MS_REMOUNT | MS_NODEV | MS_RDONLY, NULL));
    need(mount("private", "/tmp", "tmpfs", 0, NULL));
}

int main(int count, char **args) {
    const char *kind = count > 1 ? args[1] : "", *first = count > 2 ? args[2] : "";
    if (strcmp(kind, "plenty") == 0)
        hold_plenty();
    else if (strcmp(kind, "unshare") == 0)
        hold_namespaces((int)strtol(first, NULL, 0));
    else if (strcmp(kind, "queue") == 0)
        hold_queue();
    else if (strcmp(kind, "mptcp") == 0)
        need(socket(AF_INET, SOCK_STREAM, MPTCP));
    else if (strcmp(kind, "vsock") == 0)
        need(socket(AF_VSOCK, SOCK_STREAM, 0));
    else if (strcmp(kind, "netlink") == 0)
        hold_netlink(atoi(first));
    else if (strcmp(kind, "backlog") == 0)
        hold_backlog();
    else if (strcmp(kind, "watch") == 0)
        hold_watch(first);
    else if (strcmp(kind, "perf") == 0)
        hold_perf();
    else if (strcmp(kind, "ring") == 0)
        hold_ring();
    else if (strcmp(kind, "faults") == 0)
        need(syscall(SYS_userfaultfd, 1));
    else if (strcmp(kind, "ruleset") == 0)
        hold_ruleset();
    else if (strcmp(kind, "secret") == 0)
        need(syscall(447, 0));
    else if (strcmp(kind, "stopped") == 0)
        hold_child(0);
    else if (strcmp(kind, "traced") == 0)
        hold_child(1);
    else if (strcmp(kind, "open") == 0)
        need(open(first, O_RDWR));
    else if (strcmp(kind, "fuse") == 0)
        hold_fuse(first);
    else if (strcmp(kind, "name") == 0)
        need(prctl(PR_SET_NAME, "bad\033[2J\nname"));
    else if (strcmp(kind, "vfork") == 0) {
        say("ready");
        if (vfork() == 0)
            for (;;)
                pause();
    } else
        return 2;
    stay();
}
