package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/kubelet/pkg/cri/streaming/portforward"
)

const nodeName = "kubelab-node"

// Pod annotations that steer the pretend kubelet.
const (
	annStart   = "kubelab/start-after" // duration until Running; "never" = stays Pending (bound)
	annReady   = "kubelab/ready"       // "false" = Running but never Ready
	annStop    = "kubelab/stop-after"  // duration a container takes after SIGTERM; "never" = only SIGKILL ends it; "stuck" = pod object is never removed (dead node)
	annRun     = "kubelab/run-for"     // duration of a container in a Never/OnFailure pod; "forever"
	annExit    = "kubelab/exit-code"   // its exit code
	annExec    = "kubelab/exec"        // "true" = run the first container's command here (needs -allow-exec)
	annForward = "kubelab/forward-"    // + <pod port> = <host:port>: target of kubectl port-forward
	annLogs    = "kubelab/logs"        // text for kubectl logs
)

type kubeletConfig struct {
	start, stop, run time.Duration
	exec             bool
}

type podState struct {
	uid        types.UID
	boundAt    time.Time // first seen bound
	runningAt  time.Time // set Running by us
	deleteSeen time.Time // first seen with a deletion timestamp
	proc       *process
}

type kubelet struct {
	client kubernetes.Interface
	cfg    kubeletConfig
	rest   *rest.Config
	pods   coreinformers.PodInformer
	q      workqueue.TypedRateLimitingInterface[string]
	mu     sync.Mutex
	state  map[string]*podState
	nextIP int
	logf   io.Writer
}

func startKubelet(ctx context.Context, client kubernetes.Interface, cfg *rest.Config, pods coreinformers.PodInformer, pki *pki, kcfg kubeletConfig, logf io.Writer) error {
	k := &kubelet{client: client, cfg: kcfg, rest: cfg, pods: pods, state: map[string]*podState{}, logf: logf,
		q: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())}
	port, err := k.serve(ctx, pki)
	if err != nil {
		return err
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{"kubernetes.io/hostname": nodeName, "kubernetes.io/os": "linux"}},
	}
	node, err = client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		node, err = client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	res := corev1.ResourceList{"cpu": resource.MustParse("64"), "memory": resource.MustParse("256Gi"), "pods": resource.MustParse("1000")}
	node.Status = corev1.NodeStatus{
		Capacity: res, Allocatable: res, Phase: corev1.NodeRunning,
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Kubelab",
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}},
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
		NodeInfo:        corev1.NodeSystemInfo{KubeletVersion: "v0.0.0-kubelab", OperatingSystem: "linux", Architecture: "amd64"},
	}
	if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return err
	}
	add := func(o interface{}) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
			k.q.Add(key)
		}
	}
	if _, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: add, UpdateFunc: func(_, o interface{}) { add(o) }, DeleteFunc: add,
	}); err != nil {
		return err
	}
	go func() { <-ctx.Done(); k.q.ShutDown(); k.killAll() }()
	for i := 0; i < 4; i++ {
		go func() {
			for {
				key, quit := k.q.Get()
				if quit {
					return
				}
				again, err := k.sync(ctx, key)
				switch {
				case err != nil && !errors.IsNotFound(err) && !errors.IsConflict(err):
					fmt.Fprintf(k.logf, "kubelet: %s: %v\n", key, err)
					k.q.AddRateLimited(key)
				case err != nil:
					k.q.AddAfter(key, 50*time.Millisecond)
				default:
					k.q.Forget(key)
					if again > 0 {
						k.q.AddAfter(key, again)
					}
				}
				k.q.Done(key)
			}
		}()
	}
	return nil
}

// sync brings one pod a step further; the duration says when to look again.
func (k *kubelet) sync(ctx context.Context, key string) (time.Duration, error) {
	ns, name, _ := cache.SplitMetaNamespaceKey(key)
	pod, err := k.pods.Lister().Pods(ns).Get(name)
	k.mu.Lock()
	st := k.state[key]
	if errors.IsNotFound(err) || (st != nil && st.uid != pod.UID) {
		if st != nil && st.proc != nil {
			st.proc.kill()
		}
		delete(k.state, key)
		st = nil
	}
	if err != nil {
		k.mu.Unlock()
		return 0, nil
	}
	if st == nil {
		st = &podState{uid: pod.UID}
		k.state[key] = st
	}
	k.mu.Unlock()
	pod = pod.DeepCopy()
	now := time.Now()
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	api := k.client.CoreV1().Pods(ns)

	if pod.DeletionTimestamp != nil {
		if st.deleteSeen.IsZero() {
			st.deleteSeen = now
			if st.proc != nil {
				st.proc.term()
			}
		}
		if pod.Annotations[annStop] == "stuck" {
			return 0, nil
		}
		grace := 30 * time.Second
		if pod.DeletionGracePeriodSeconds != nil {
			grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
		}
		wait := duration(pod, annStop, "never", grace, k.cfg.stop)
		if pod.Spec.NodeName == "" || ended || st.runningAt.IsZero() {
			wait = 0
		}
		if st.proc != nil && st.proc.running() {
			wait = grace // a real process: until it ends or the grace period is over
			if left := time.Until(st.deleteSeen.Add(wait)); left > 50*time.Millisecond {
				return 50 * time.Millisecond, nil
			}
			st.proc.kill()
		}
		if left := time.Until(st.deleteSeen.Add(min(wait, grace))); left > 0 {
			return left, nil
		}
		if !ended && !st.runningAt.IsZero() { // as a real kubelet does: a last status before the object goes
			k.terminate(pod, 143, "Error")
			if upd, err := api.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err == nil {
				pod = upd
			}
		}
		zero := int64(0)
		return 0, api.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	}

	if pod.Spec.NodeName == "" {
		if len(pod.Spec.SchedulingGates) > 0 {
			return 0, nil
		}
		return 0, api.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name, UID: pod.UID},
			Target: corev1.ObjectReference{Kind: "Node", Name: nodeName}}, metav1.CreateOptions{})
	}
	if pod.Spec.NodeName != nodeName || ended {
		return 0, nil
	}
	if st.boundAt.IsZero() {
		st.boundAt = now
	}
	if pod.Status.Phase != corev1.PodRunning {
		if pod.Annotations[annStart] == "never" {
			return 0, nil
		}
		if left := time.Until(st.boundAt.Add(duration(pod, annStart, "", 0, k.cfg.start))); left > 0 {
			return left, nil
		}
		if k.cfg.exec && pod.Annotations[annExec] == "true" && st.proc == nil {
			p, err := k.startProcess(ctx, pod)
			if err != nil {
				return 0, err
			}
			st.proc = p
		}
		k.mu.Lock()
		k.nextIP++
		ip := fmt.Sprintf("10.244.%d.%d", k.nextIP/250, k.nextIP%250+1)
		k.mu.Unlock()
		ready := pod.Annotations[annReady] != "false"
		t := metav1.Now()
		pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &t
		pod.Status.HostIP, pod.Status.HostIPs = "127.0.0.1", []corev1.HostIP{{IP: "127.0.0.1"}}
		pod.Status.PodIP, pod.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
		setCond(pod, corev1.PodScheduled, true)
		setCond(pod, corev1.PodInitialized, true)
		setCond(pod, corev1.ContainersReady, ready)
		setCond(pod, corev1.PodReady, ready)
		pod.Status.ContainerStatuses = nil
		for _, c := range pod.Spec.Containers {
			yes := true
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
				Name: c.Name, Image: c.Image, ImageID: "kubelab://" + c.Image, ContainerID: "kubelab://" + string(pod.UID) + "/" + c.Name,
				Ready: ready, Started: &yes, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: t}},
			})
		}
		if _, err := api.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
			return 0, err
		}
		st.runningAt = now
		return time.Millisecond, nil
	}
	if st.runningAt.IsZero() {
		st.runningAt = now // running since before a restart of kubelab
	}
	if st.proc != nil {
		if st.proc.running() {
			return 100 * time.Millisecond, nil
		}
		k.terminate(pod, st.proc.code, "")
	} else {
		if pod.Spec.RestartPolicy == corev1.RestartPolicyAlways || pod.Annotations[annRun] == "forever" {
			return 0, nil
		}
		if left := time.Until(st.runningAt.Add(duration(pod, annRun, "", 0, k.cfg.run))); left > 0 {
			return left, nil
		}
		code, _ := strconv.Atoi(pod.Annotations[annExit])
		k.terminate(pod, code, "")
	}
	_, err = api.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return 0, err
}

// terminate writes the end of all containers into the pod's status. Nothing is
// ever restarted: restartPolicy OnFailure/Always ends like Never.
func (k *kubelet) terminate(pod *corev1.Pod, code int, reason string) {
	pod.Status.Phase = corev1.PodSucceeded
	if reason == "" {
		reason = "Completed"
	}
	if code != 0 {
		pod.Status.Phase, reason = corev1.PodFailed, "Error"
	}
	setCond(pod, corev1.ContainersReady, false)
	setCond(pod, corev1.PodReady, false)
	for i := range pod.Status.ContainerStatuses {
		c := &pod.Status.ContainerStatuses[i]
		no := false
		c.Ready, c.Started = false, &no
		c.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: int32(code), Reason: reason, FinishedAt: metav1.Now()}}
	}
}

func setCond(pod *corev1.Pod, typ corev1.PodConditionType, ok bool) {
	s := corev1.ConditionFalse
	if ok {
		s = corev1.ConditionTrue
	}
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == typ {
			if c.Status != s {
				c.Status, c.LastTransitionTime = s, metav1.Now()
			}
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: typ, Status: s, LastTransitionTime: metav1.Now()})
}

func duration(pod *corev1.Pod, ann, word string, wordIs, otherwise time.Duration) time.Duration {
	v := pod.Annotations[ann]
	if word != "" && v == word {
		return wordIs
	}
	if d, err := time.ParseDuration(v); err == nil {
		return d
	}
	return otherwise
}

// serve answers what the API server proxies to a kubelet: port-forward and logs.
func (k *kubelet) serve(ctx context.Context, pki *pki) (int, error) {
	cert, err := tls.LoadX509KeyPair(pki.servingCert, pki.servingKey)
	if err != nil {
		return 0, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/portForward/", func(w http.ResponseWriter, r *http.Request) {
		p := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		if len(p) < 3 {
			http.NotFound(w, r)
			return
		}
		opts, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, k, p[1]+"/"+p[2], "", opts, time.Hour, 30*time.Second, portforward.SupportedProtocols)
	})
	mux.HandleFunc("/containerLogs/", func(w http.ResponseWriter, r *http.Request) {
		p := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		if len(p) < 4 {
			http.NotFound(w, r)
			return
		}
		if pod, err := k.pods.Lister().Pods(p[1]).Get(p[2]); err == nil {
			k.mu.Lock()
			var proc *process
			if st := k.state[p[1]+"/"+p[2]]; st != nil {
				proc = st.proc
			}
			k.mu.Unlock()
			logs(w, r, pod, proc)
		}
	})
	// The test machine's other users must not reach it: a client certificate of our CA is required.
	srv := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pki.pool(), NextProtos: []string{"http/1.1"}}}
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	go func() { <-ctx.Done(); _ = srv.Close() }()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// logs answers as a kubelet does: follow, timestamps and sinceTime (in whole seconds) of the request hold.
func logs(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, proc *process) {
	query := r.URL.Query()
	since, _ := time.Parse(time.RFC3339Nano, query.Get("sinceTime"))
	show := func(line string) {
		at, text, _ := strings.Cut(line, " ")
		if t, err := time.Parse(stamp, at); err == nil && t.Before(since) {
			return
		}
		if query.Get("timestamps") == "true" {
			text = line
		}
		_, _ = io.WriteString(w, text)
	}
	for _, line := range strings.SplitAfter(pod.Annotations[annLogs], "\n") {
		if line != "" {
			show(pod.CreationTimestamp.UTC().Format(stamp) + " " + line)
		}
	}
	if proc == nil {
		return
	}
	f, err := os.Open(proc.out)
	if err != nil {
		return
	}
	defer f.Close()
	in := bufio.NewReader(f)
	line := ""
	for {
		running := proc.running()
		for {
			part, err := in.ReadString('\n')
			line += part
			if err != nil {
				break
			}
			show(line)
			line = ""
		}
		if !running || query.Get("follow") != "true" {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// PortForward joins the stream with the address that the pod's annotation
// kubelab/forward-<port> names (default: the same port on 127.0.0.1).
func (k *kubelet) PortForward(ctx context.Context, name string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	target := fmt.Sprintf("127.0.0.1:%d", port)
	ns, n, _ := cache.SplitMetaNamespaceKey(name)
	if pod, err := k.pods.Lister().Pods(ns).Get(n); err == nil {
		if v := pod.Annotations[annForward+strconv.Itoa(int(port))]; v != "" {
			target = v
		}
	}
	if host, _, err := net.SplitHostPort(target); err != nil || net.ParseIP(host) == nil || !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("kubelab forwards to loopback addresses only, not %s", target)
	}
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", target)
	if err != nil {
		return err
	}
	defer c.Close()
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(c, stream); _ = c.(*net.TCPConn).CloseWrite(); done <- struct{}{} }()
	go func() { _, _ = io.Copy(stream, c); done <- struct{}{} }()
	<-done
	<-done
	return nil
}
