/*
 * What a process in a VE can do to its host: one line for each check, with `allowed` or the name of the errno.
 *
 * Each check runs in a child of its own, as some change the meaning of later ones. Arguments are valid where validity
 * is looked at before permission, and deliberately wrong where it is looked at afterwards: then an errno other than
 * EPERM says that the kernel was reached. Nothing here may harm a machine on which a check succeeds, and still the
 * probe refuses to run where its user namespace is the host's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { OUTSIDE = 99, SILENT = 250, CHECK_SECONDS = 10 };

/* A check gives a number that is negative on failure, with errno set. */
typedef long (*check)(void);

#define CHECK(name, call) static long name(void) { return (call); }
#define SYS(...) syscall(__VA_ARGS__)

/* Opens a file for writing and writes nothing: to be let in is enough. */
static long open_for_writing(const char *path) { return open(path, O_WRONLY | O_CLOEXEC); }

/* Takes a mask or a read-only mount away first, as the VE's root may, in a mount namespace of its own. */
static long uncovered(const char *path)
{
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return -1;
    while (umount2(path, MNT_DETACH) == 0)
        ;
    return 0;
}

static long write_uncovered(const char *mounted, const char *path)
{
    return uncovered(mounted) ? -1 : open_for_writing(path);
}

/* Reading is what counts: a masked file can be opened, and is empty. */
static long read_uncovered(const char *path)
{
    char byte;
    if (uncovered(path))
        return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    long got = read(fd, &byte, 1);
    if (got == 0)
        errno = ENODATA;
    return got == 1 ? 0 : -1;
}

static long make_node(mode_t kind, unsigned major_, unsigned minor_)
{
    unlink("/tmp/probe-node");
    long result = mknod("/tmp/probe-node", kind | 0600, makedev(major_, minor_));
    int failure = errno;
    unlink("/tmp/probe-node");
    errno = failure;
    return result;
}

static long mount_kind(const char *kind)
{
    return unshare(CLONE_NEWNS) ? -1 : mount("/dev/null", "/mnt", kind, 0, NULL);
}

static long clone_user(void)
{
    long pid = SYS(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return pid;
}

static long clone3_user(void)
{
    struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long pid = SYS(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        _exit(0);
    return pid;
}

static long perf(void)
{
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .exclude_kernel = 1};
    return SYS(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
}

static long io_uring(void)
{
    struct io_uring_params parameters = {0};
    return SYS(SYS_io_uring_setup, 1, &parameters);
}

static long unknown_bpf(void)
{
    union bpf_attr attributes = {0};
    return SYS(SYS_bpf, 9999, &attributes, sizeof attributes);
}

static long open_by_handle(void)
{
    struct { struct file_handle handle; unsigned char bytes[MAX_HANDLE_SZ]; } name = {.handle = {.handle_bytes = MAX_HANDLE_SZ}};
    int mount_id;
    if (name_to_handle_at(AT_FDCWD, "/", &name.handle, &mount_id, 0))
        return -1;
    int at = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return open_by_handle_at(at, &name.handle, O_PATH);
}

static long set_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return clock_settime(CLOCK_REALTIME, &now);
}

/* A tick of no length is refused, but only to those who may set the clock. */
static long adjust_clock(void)
{
    struct timex change = {.modes = ADJ_TICK, .tick = 0};
    return adjtimex(&change);
}

static long splice_memory(void)
{
    int ends[2];
    char byte = 0;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    return pipe(ends) ? -1 : vmsplice(ends[1], &part, 1, 0);
}

static long join_init(const char *kind)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/1/ns/%s", kind);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -1 : setns(fd, 0);
}

CHECK(mount_tmpfs, unshare(CLONE_NEWNS) ? -1 : mount("none", "/mnt", "tmpfs", 0, NULL))
CHECK(mount_ext4, mount_kind("ext4"))
CHECK(mount_btrfs, mount_kind("btrfs"))
CHECK(mknod_block, make_node(S_IFBLK, 7, 0))
CHECK(mknod_mem, make_node(S_IFCHR, 1, 1))
CHECK(open_mem, open("/dev/mem", O_RDONLY))
CHECK(open_kmsg, open("/dev/kmsg", O_WRONLY))
CHECK(core_pattern, open_for_writing("/proc/sys/kernel/core_pattern"))
CHECK(core_pattern_uncovered, write_uncovered("/proc/sys", "/proc/sys/kernel/core_pattern"))
CHECK(modprobe_uncovered, write_uncovered("/proc/sys", "/proc/sys/kernel/modprobe"))
CHECK(panic_uncovered, write_uncovered("/proc/sys", "/proc/sys/kernel/panic"))
CHECK(overcommit_uncovered, write_uncovered("/proc/sys", "/proc/sys/vm/overcommit_memory"))
CHECK(file_max_uncovered, write_uncovered("/proc/sys", "/proc/sys/fs/file-max"))
CHECK(sysrq_uncovered, write_uncovered("/proc/sysrq-trigger", "/proc/sysrq-trigger"))
CHECK(kcore_uncovered, read_uncovered("/proc/kcore"))
CHECK(uevent_helper, open_for_writing("/sys/kernel/uevent_helper"))
CHECK(init_module, SYS(SYS_init_module, "none", 4, ""))
CHECK(finit_module, SYS(SYS_finit_module, open("/dev/null", O_RDONLY), "", 0))
CHECK(delete_module, SYS(SYS_delete_module, "probe_none", O_NONBLOCK))
CHECK(kexec_load, SYS(SYS_kexec_load, 0, 0, NULL, 0x40000000UL))
CHECK(kexec_file_load, SYS(SYS_kexec_file_load, -1, -1, 0, "", 0x40000000UL))
CHECK(swap_on, SYS(SYS_swapon, "/probe-none", 0))
CHECK(swap_off, SYS(SYS_swapoff, "/probe-none"))
CHECK(unshare_user, unshare(CLONE_NEWUSER))
CHECK(socket_vsock, socket(AF_VSOCK, SOCK_STREAM, 0))
CHECK(socket_alg, socket(AF_ALG, SOCK_SEQPACKET, 0))
CHECK(socket_rxrpc, socket(AF_RXRPC, SOCK_DGRAM, AF_INET))
CHECK(add_key, SYS(SYS_add_key, "user", "probe", "x", 1, -2))
CHECK(request_key, SYS(SYS_request_key, "user", "probe-none", NULL, -2))
CHECK(keyctl, SYS(SYS_keyctl, 0, -2, 1))
CHECK(user_fault, SYS(SYS_userfaultfd, O_CLOEXEC | 1))
CHECK(quota, SYS(SYS_quotactl, 0x800008 << 8, "/probe-none", 0, NULL))
CHECK(io_level, SYS(SYS_iopl, 3))
CHECK(io_port, SYS(SYS_ioperm, 0x80, 1, 1))
CHECK(no_randomisation, personality(ADDR_NO_RANDOMIZE))
CHECK(type_into_terminal, ioctl(0, TIOCSTI, "x"))
CHECK(accounting, SYS(SYS_acct, "/probe-none"))
CHECK(move_pages_, SYS(SYS_move_pages, 0, 0, NULL, NULL, NULL, 0))
CHECK(join_init_user, join_init("user"))

static const struct {
    const char *name;
    check run;
} CHECKS[] = {
    {"mount-tmpfs", mount_tmpfs},
    {"mount-ext4", mount_ext4},
    {"mount-btrfs", mount_btrfs},
    {"mknod-block", mknod_block},
    {"mknod-mem", mknod_mem},
    {"open-mem", open_mem},
    {"open-kmsg", open_kmsg},
    {"core-pattern", core_pattern},
    {"core-pattern-uncovered", core_pattern_uncovered},
    {"modprobe-uncovered", modprobe_uncovered},
    {"panic-uncovered", panic_uncovered},
    {"overcommit-uncovered", overcommit_uncovered},
    {"file-max-uncovered", file_max_uncovered},
    {"sysrq-uncovered", sysrq_uncovered},
    {"kcore-uncovered", kcore_uncovered},
    {"uevent-helper", uevent_helper},
    {"init-module", init_module},
    {"finit-module", finit_module},
    {"delete-module", delete_module},
    {"kexec-load", kexec_load},
    {"kexec-file-load", kexec_file_load},
    {"swapon", swap_on},
    {"swapoff", swap_off},
    {"unshare-user", unshare_user},
    {"clone-user", clone_user},
    {"clone3-user", clone3_user},
    {"socket-vsock", socket_vsock},
    {"socket-alg", socket_alg},
    {"socket-rxrpc", socket_rxrpc},
    {"add-key", add_key},
    {"request-key", request_key},
    {"keyctl", keyctl},
    {"bpf", unknown_bpf},
    {"perf-event-open", perf},
    {"io-uring-setup", io_uring},
    {"userfaultfd", user_fault},
    {"vmsplice", splice_memory},
    {"move-pages", move_pages_},
    {"open-by-handle", open_by_handle},
    {"clock-settime", set_clock},
    {"adjtimex", adjust_clock},
    {"quotactl", quota},
    {"iopl", io_level},
    {"ioperm", io_port},
    {"personality", no_randomisation},
    {"tiocsti", type_into_terminal},
    {"acct", accounting},
    {"join-init-user", join_init_user},
};

static int is_outside(void)
{
    unsigned long inside, outside, count;
    FILE *map = fopen("/proc/self/uid_map", "r");
    if (!map || fscanf(map, "%lu %lu %lu", &inside, &outside, &count) != 3)
        return 1;
    fclose(map);
    return outside == 0;
}

static int run(check one)
{
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        alarm(CHECK_SECONDS);
        errno = 0;
        _exit(one() < 0 ? (errno ? errno : SILENT) : 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return SILENT;
    return WEXITSTATUS(status);
}

int main(void)
{
    if (is_outside()) {
        fputs("probe: this is no VE: uid 0 is the host's; refusing to run\n", stderr);
        return OUTSIDE;
    }
    for (size_t i = 0; i < sizeof CHECKS / sizeof *CHECKS; i++) {
        int failure = run(CHECKS[i].run);
        const char *word = failure == SILENT ? "SILENT" : failure ? strerrorname_np(failure) : "allowed";
        printf("%s %s\n", CHECKS[i].name, word ? word : "UNKNOWN");
        fflush(stdout);
    }
    return 0;
}
