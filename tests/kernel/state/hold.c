/* Holds state of many kinds, and says of each whether it is as it was made: "hold DIRECTORY", asked over TCP port 7000.
 * Every line that is read is answered with a line: the number of the answer, and the names of what is not as it was.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int deleted, linked, named, memory, event, timer, ticking, watch, pipe_[2], local[2], shm, sem, msg, child[2];
static pid_t son;
static volatile sig_atomic_t alarms;
static char answer[4096];

static void must(int result, const char *what) {
    if (result < 0) { perror(what); exit(1); }
}

static void check(int good, const char *what) {
    if (!good) { strcat(answer, " "); strcat(answer, what); }
}

static void on_alarm(int number) { (void)number; alarms++; }

static int holds(int file, const char *text) {
    char found[64] = "";
    return pread(file, found, sizeof found - 1, 0) == (ssize_t)strlen(text) && !strcmp(found, text);
}

static int make_file(const char *name, const char *text) {
    int file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    must(file, name);
    must(write(file, text, strlen(text)), name);
    return file;
}

static void make_files(void) {
    deleted = make_file("deleted", "gone");
    must(unlink("deleted"), "unlink");
    linked = make_file("linked", "two names");
    must(link("linked", "other"), "link");
    must(unlink("linked"), "unlink");
    named = make_file("named", "here");
    must(flock(named, LOCK_EX), "flock");
    memory = memfd_create("memory", 0);
    must(write(memory, "memfd", 5), "memfd");
    watch = inotify_init1(IN_NONBLOCK);
    must(mkdir("watched", 0700), "mkdir");
    must(inotify_add_watch(watch, "watched", IN_CREATE), "watch");
}

static void make_ipc(void) {
    shm = shmget(0x5658, 4096, IPC_CREAT | 0600);
    must(shm, "shmget");
    char *at = shmat(shm, NULL, 0);
    strcpy(at, "shared");
    shmdt(at);
    sem = semget(0x5658, 1, IPC_CREAT | 0600);
    must(semctl(sem, 0, SETVAL, 3), "semctl");
    msg = msgget(0x5658, IPC_CREAT | 0600);
    struct { long type; char text[8]; } letter = {1, "letter"};
    must(msgsnd(msg, &letter, sizeof letter.text, 0), "msgsnd");
    must(pipe(pipe_), "pipe");
    must(write(pipe_[1], "in the pipe", 11), "pipe");
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, local), "socketpair");
    must(write(local[1], "local", 5), "socketpair");
    event = eventfd(7, EFD_NONBLOCK);
    must(event, "eventfd");
}

static void make_timers(void) {
    struct itimerspec once = {{0, 0}, {3600, 0}};
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    must(timerfd_settime(timer, 0, &once, NULL), "timerfd");
    struct itimerspec every = {{0, 20000000}, {0, 20000000}};
    ticking = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    must(timerfd_settime(ticking, 0, &every, NULL), "timerfd");
    signal(SIGALRM, on_alarm);
    struct itimerval real = {{0, 20000}, {0, 20000}};
    must(setitimer(ITIMER_REAL, &real, NULL), "setitimer");
}

/* A son with a son of its own, who answers by a pipe. */
static void make_children(void) {
    int asked[2], told[2];
    must(pipe(asked), "pipe");
    must(pipe(told), "pipe");
    son = fork();
    must(son, "fork");
    if (!son) {
        setsid();
        if (fork()) { int status; wait(&status); _exit(0); }
        char one;
        while (read(asked[0], &one, 1) == 1) must(write(told[1], "y", 1), "child");
        _exit(0);
    }
    child[0] = told[0];
    child[1] = asked[1];
}

static int grandson_answers(void) {
    char one = 0;
    return write(child[1], "?", 1) == 1 && read(child[0], &one, 1) == 1 && one == 'y';
}

static void check_ipc(void) {
    char *at = shmat(shmget(0x5658, 0, 0), NULL, 0), found[16] = "";
    check(at != (void *)-1 && !strcmp(at, "shared"), "shm");
    if (at != (void *)-1) shmdt(at);
    check(shmget(0x5658, 0, 0) == shm && semget(0x5658, 0, 0) == sem && msgget(0x5658, 0) == msg, "ipc-ids");
    check(semctl(sem, 0, GETVAL) == 3, "semaphore");
    struct msqid_ds queue;
    check(msgctl(msg, IPC_STAT, &queue) == 0 && queue.msg_qnum == 1, "message-queue");
    check(read(pipe_[0], found, 11) == 11 && !memcmp(found, "in the pipe", 11), "pipe");
    must(write(pipe_[1], "in the pipe", 11), "pipe");
    check(recv(local[0], found, 5, MSG_PEEK) == 5 && !memcmp(found, "local", 5), "socketpair");
    uint64_t value = 0;
    check(read(event, &value, sizeof value) == sizeof value && value == 7, "eventfd");
    must(write(event, &value, sizeof value), "eventfd");
}

static void check_timers(void) {
    struct itimerspec left;
    struct timespec moment = {0, 100000000};
    int before = alarms;
    uint64_t ticks = 0;
    while (read(ticking, &ticks, sizeof ticks) > 0) ;
    while (nanosleep(&moment, &moment) < 0 && errno == EINTR) ;
    check(read(ticking, &ticks, sizeof ticks) == sizeof ticks && ticks > 0, "ticking-timerfd");
    check(timerfd_gettime(timer, &left) == 0 && left.it_value.tv_sec > 3000, "timerfd");
    check(alarms > before, "itimer");
}

static void check_files(void) {
    struct stat info;
    check(holds(deleted, "gone") && fstat(deleted, &info) == 0 && access("deleted", F_OK) < 0, "deleted-file");
    check(holds(linked, "two names") && access("linked", F_OK) < 0 && access("other", F_OK) == 0, "linked-file");
    check(holds(named, "here"), "file");
    check(holds(memory, "memfd"), "memfd");
    int again = open("named", O_RDWR);
    check(flock(again, LOCK_EX | LOCK_NB) < 0, "flock");
    close(again);
    char events[4096];
    while (read(watch, events, sizeof events) > 0) ;
    close(make_file("watched/new", ""));
    check(read(watch, events, sizeof events) > 0, "inotify");
    unlink("watched/new");
}

int main(int count, char **words) {
    must(count == 2 ? chdir(words[1]) : -1, "hold DIRECTORY");
    signal(SIGPIPE, SIG_IGN);
    if (fork()) return 0;
    setsid();
    make_files();
    make_ipc();
    make_children();
    make_timers();
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7000)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    must(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    must(listen(listener, 8), "listen");
    for (;;) {
        int peer = accept(listener, NULL, NULL), number = 0;
        char line[256];
        if (peer < 0) continue;
        for (;;) {
            ssize_t got = read(peer, line, sizeof line);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) break;
            sprintf(answer, "%d", ++number);
            check_files();
            check_ipc();
            check_timers();
            check(grandson_answers(), "children");
            strcat(answer, "\n");
            must(write(peer, answer, strlen(answer)), "answer");
        }
        close(peer);
    }
}
