// Command nriplugin is a plugin of NRI's on the Go module's stub, for the end-to-end tests. What it does is a JSON
// document: its argument, or its configuration when a runtime started it. It writes a line of JSON for every event.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	validator "github.com/containerd/nri/plugins/default-validator"
	"github.com/containerd/ttrpc"
)

// Script is what the plugin does.
type Script struct {
	Socket string // where it connects; not for a plugin that a runtime starts
	Name   string
	Index  string
	Log    string // the file that events are written to
	Events string // what it subscribes to, as the stub reads it; empty for everything it handles

	Env         map[string]string
	Annotations map[string]string
	Mounts      []*api.Mount
	Args        []string
	Hooks       *api.Hooks
	Devices     []*api.LinuxDevice
	Rlimits     []*api.POSIXRlimit
	Sysctl      map[string]string
	OomScoreAdj int
	MemoryLimit int64 // of new containers
	Namespaces  []*api.LinuxNamespace
	Seccomp     *api.LinuxSeccomp

	Refuse     map[string]string                 // by event: refuse what has this in its name
	Slow       map[string]int64                  // by event: milliseconds to take, once
	UpdateTo   int64                             // memory limit that updates get instead of what was asked
	SquashAll  int64                             // memory limit that every other container gets when one is created
	Die        map[string]string                 // by event: exit when what it is about has this in its name
	Evict      map[string]string                 // by new container: evict the other of that name
	Validator  *validator.DefaultValidatorConfig // judge as the module's own validator does
	Validate   string                            // reject containers that this plugin's name adjusted
	FailPolicy bool                              // fail requests that it did not answer
	Keep       bool                              // stay connected after a timeout
	Reconnect  bool                              // connect again when the connection is lost
}

type plugin struct {
	script Script
	stub   stub.Stub
	log    sync.Mutex
	once   sync.Map
}

// Line is an event as it is written down.
type Line struct {
	Event      string
	Pod        string   `json:",omitempty"`
	Container  string   `json:",omitempty"`
	State      string   `json:",omitempty"`
	Pods       []string `json:",omitempty"`
	Containers []string `json:",omitempty"`
	Env        []string `json:",omitempty"`
	Memory     int64    `json:",omitempty"`
	Detail     string   `json:",omitempty"`
}

func main() {
	var script Script
	if len(os.Args) > 1 {
		if err := json.Unmarshal([]byte(os.Args[1]), &script); err != nil {
			fail(err)
		}
	}
	p := &plugin{script: script}
	options := []stub.Option{stub.WithOnClose(func() { p.write(Line{Event: "Closed"}) })}
	if script.Socket != "" {
		options = append(options, stub.WithSocketPath(script.Socket),
			stub.WithPluginName(script.Name), stub.WithPluginIdx(script.Index))
	}
	if script.Evict != nil {
		options = append(options, stub.WithTTRPCOptions(nil, []ttrpc.ServerOpt{ttrpc.WithUnaryServerInterceptor(p.evicting)}))
	}
	if script.FailPolicy || script.Keep {
		policy := &api.FailurePolicy{FailRequest: script.FailPolicy, KeepConnected: script.Keep}
		options = append(options, stub.WithFailurePolicy(policy))
	}
	for {
		s, err := stub.New(p, options...)
		if err != nil {
			fail(err)
		}
		p.stub = s
		err = s.Run(context.Background())
		if !p.script.Reconnect {
			if err != nil {
				fail(err)
			}
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "nriplugin:", err)
	os.Exit(1)
}

func (p *plugin) write(line Line) {
	p.log.Lock()
	defer p.log.Unlock()
	if p.script.Log == "" {
		return
	}
	text, err := json.Marshal(line)
	if err != nil {
		fail(err)
	}
	file, err := os.OpenFile(p.script.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fail(err)
	}
	defer file.Close()
	if _, err := file.Write(append(text, '\n')); err != nil {
		fail(err)
	}
}

// event writes an event down, takes its time, and refuses it if the script says so.
func (p *plugin) event(line Line) error {
	p.write(line)
	if wait := p.script.Slow[line.Event]; wait != 0 {
		if _, done := p.once.LoadOrStore(line.Event, true); !done {
			// The deadline of the call is not minded: who answers at that very moment may be in time.
			time.Sleep(time.Duration(wait) * time.Millisecond)
		}
	}
	if part := p.script.Die[line.Event]; part != "" && strings.Contains(line.Pod+line.Container, part) {
		os.Exit(3)
	}
	if part := p.script.Refuse[line.Event]; part != "" && strings.Contains(line.Pod+line.Container, part) {
		return errors.New("the script refuses " + line.Event)
	}
	return nil
}

func of(event string, pod *api.PodSandbox, container *api.Container) Line {
	return Line{
		Event: event, Pod: pod.GetName(), Container: container.GetName(),
		State: strings.TrimPrefix(container.GetState().String(), "CONTAINER_"), Env: container.GetEnv(),
		Memory: container.GetLinux().GetResources().GetMemory().GetLimit().GetValue(),
	}
}

func (p *plugin) Configure(_ context.Context, config, runtime, version string) (stub.EventMask, error) {
	if config != "" {
		if err := json.Unmarshal([]byte(config), &p.script); err != nil {
			return 0, err
		}
	}
	p.write(Line{Event: "Configure", Detail: runtime + " " + version + " " + p.stub.RuntimeNRIVersion()})
	if p.script.Events == "" {
		return 0, nil
	}
	return api.ParseEventMask(p.script.Events)
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	line := Line{Event: "Synchronize"}
	for _, pod := range pods {
		line.Pods = append(line.Pods, pod.GetName())
	}
	for _, container := range containers {
		line.Containers = append(line.Containers, container.GetName())
	}
	return nil, p.event(line)
}

func (p *plugin) Shutdown(context.Context) { p.write(Line{Event: "Shutdown"}) }

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	line := of("RunPodSandbox", pod, nil)
	line.Detail = strings.Join(pod.GetIps(), " ")
	return p.event(line)
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.event(of("StopPodSandbox", pod, nil))
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.event(of("RemovePodSandbox", pod, nil))
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, limits *api.LinuxResources) error {
	line := of("UpdatePodSandbox", pod, nil)
	line.Memory = limits.GetMemory().GetLimit().GetValue()
	return p.event(line)
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.event(of("PostUpdatePodSandbox", pod, nil))
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	if err := p.event(of("CreateContainer", pod, container)); err != nil {
		return nil, nil, err
	}
	adjust := &api.ContainerAdjustment{}
	for key, value := range p.script.Env {
		adjust.AddEnv(key, value)
	}
	for key, value := range p.script.Annotations {
		adjust.AddAnnotation(key, value)
	}
	for _, mount := range p.script.Mounts {
		adjust.AddMount(mount)
	}
	if len(p.script.Args) > 0 {
		adjust.SetArgs(p.script.Args)
	}
	if p.script.Hooks != nil {
		adjust.AddHooks(p.script.Hooks)
	}
	for _, device := range p.script.Devices {
		adjust.AddDevice(device)
	}
	for _, limit := range p.script.Rlimits {
		adjust.AddRlimit(limit.GetType(), limit.GetHard(), limit.GetSoft())
	}
	for key, value := range p.script.Sysctl {
		adjust.SetLinuxSysctl(key, value)
	}
	for _, namespace := range p.script.Namespaces {
		adjust.AddOrReplaceNamespace(namespace)
	}
	if p.script.Seccomp != nil {
		adjust.SetLinuxSeccompPolicy(p.script.Seccomp)
	}
	if p.script.OomScoreAdj != 0 {
		adjust.SetLinuxOomScoreAdj(&p.script.OomScoreAdj)
	}
	if p.script.MemoryLimit != 0 {
		adjust.SetLinuxMemoryLimit(p.script.MemoryLimit)
	}
	return adjust, p.squash(container.GetId()), nil
}

// evicting adds evictions to the answers about new containers, for which the stub has no words.
func (p *plugin) evicting(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	var request *api.CreateContainerRequest
	answer, err := method(ctx, func(into any) error {
		request, _ = into.(*api.CreateContainerRequest)
		return unmarshal(into)
	})
	if created, ok := answer.(*api.CreateContainerResponse); ok && err == nil && request != nil {
		if id, known := p.once.Load("named " + p.script.Evict[request.GetContainer().GetName()]); known {
			created.Evict = append(created.Evict, &api.ContainerEviction{ContainerId: id.(string), Reason: "the script wants room"})
		}
	}
	return answer, err
}

// squash updates every other container that the plugin knows.
func (p *plugin) squash(except string) []*api.ContainerUpdate {
	var updates []*api.ContainerUpdate
	if p.script.SquashAll != 0 {
		p.once.Range(func(key, _ any) bool {
			if id, known := strings.CutPrefix(key.(string), "container "); known && id != except {
				update := &api.ContainerUpdate{}
				update.SetContainerId(id)
				update.SetLinuxMemoryLimit(p.script.SquashAll)
				updates = append(updates, update)
			}
			return true
		})
	}
	return updates
}

func (p *plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	p.once.Store("container "+container.GetId(), true)
	p.once.Store("named "+container.GetName(), container.GetId())
	return p.event(of("PostCreateContainer", pod, container))
}

func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.event(of("StartContainer", pod, container))
}

func (p *plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.event(of("PostStartContainer", pod, container))
}

func (p *plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container, limits *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	line := of("UpdateContainer", pod, container)
	line.Memory = limits.GetMemory().GetLimit().GetValue()
	if err := p.event(line); err != nil || p.script.UpdateTo == 0 {
		return nil, err
	}
	update := &api.ContainerUpdate{}
	update.SetContainerId(container.GetId())
	update.SetLinuxMemoryLimit(p.script.UpdateTo)
	return []*api.ContainerUpdate{update}, nil
}

func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.event(of("PostUpdateContainer", pod, container))
}

func (p *plugin) StopContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) ([]*api.ContainerUpdate, error) {
	p.once.Delete("container " + container.GetId())
	return nil, p.event(of("StopContainer", pod, container))
}

func (p *plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.event(of("RemoveContainer", pod, container))
}

func (p *plugin) ValidateContainerAdjustment(ctx context.Context, request *api.ValidateContainerAdjustmentRequest) error {
	line := of("ValidateContainerAdjustment", request.GetPod(), request.GetContainer())
	for _, asked := range request.GetPlugins() {
		line.Pods = append(line.Pods, asked.GetIndex()+"-"+asked.GetName())
	}
	if err := p.event(line); err != nil {
		return err
	}
	if p.script.Validator != nil {
		return validator.NewDefaultValidator(p.script.Validator).ValidateContainerAdjustment(ctx, request)
	}
	for key := range request.GetAdjust().GetAnnotations() {
		owner, _ := request.GetOwners().AnnotationOwner(request.GetContainer().GetId(), key)
		if p.script.Validate != "" && strings.Contains(owner, p.script.Validate) {
			return fmt.Errorf("%s set annotation %s", owner, key)
		}
	}
	return nil
}
