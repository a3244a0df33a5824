# from tvm.script import tirx as T
# from tvm.tirx.layout import Axis

@T.prim_func(s_tir=True)
def linear(W_data: T.Buffer(("n_W_data",), "float32"), X: T.Buffer((2, 128), "float32"), Y: T.Buffer((2, 160), "float32")):
    n_W_data = T.int32()
    T.func_attr({"tirx.noalias": True})
    # with T.sblock("root"):
    for v in T.parallel(6):
        with T.sblock("tile"):
            b = T.axis.opaque(2, v // 3)
            m = T.axis.opaque(1, 0)
            p0 = T.axis.opaque(3, v % 3)
            T.reads(W_data[0:n_W_data], X[0:2, 0:128], Y[0:2, 0:160])
            T.writes(Y[0:2, 0:160])
            buffer = T.sblock_alloc_buffer((64,), scope="local")
            for v_1, v_2 in T.grid(4, 16):
                with T.sblock("init"):
                    p2, v_3 = T.axis.remap("SS", [v_1, v_2])
                    T.reads()
                    T.writes(buffer[p2 * 16 + v_3])
                    buffer[p2 * 16 + v_3] = T.float32(0.0)
            for v_1 in range(8):
                with T.sblock("step"):
                    p1 = T.axis.opaque(8, v_1)
                    T.reads(W_data[0:n_W_data], X[0:2, 0:128], Y[0:2, 0:160], buffer[0:64])
                    T.writes(Y[0:2, 0:160], buffer[0:64])
                    with T.sblock("fma_16"):
                        T.reads(W_data[0:n_W_data], X[0:2, 0:128], Y[0:2, 0:160], buffer[0:64])
                        T.writes(Y[0:2, 0:160], buffer[0:64])
                        buffer[0:16] = buffer[T.Ramp(0, 1, 16)] + T.Broadcast(W_data[(p0 * 8 + p1) * 4], 16) * X[b, T.Ramp(p1 * 16 + m * 16, 1, 16)]
                        buffer[16:32] = buffer[T.Ramp(16, 1, 16)] + T.Broadcast(W_data[(p0 * 8 + p1) * 4 + 1], 16) * X[b, T.Ramp(p1 * 16 + m * 16, 1, 16)]
                        buffer[32:48] = buffer[T.Ramp(32, 1, 16)] + T.Broadcast(W_data[(p0 * 8 + p1) * 4 + 2], 16) * X[b, T.Ramp(p1 * 16 + m * 16, 1, 16)]
                        buffer[48:64] = buffer[T.Ramp(48, 1, 16)] + T.Broadcast(W_data[(p0 * 8 + p1) * 4 + 3], 16) * X[b, T.Ramp(p1 * 16 + m * 16, 1, 16)]
            for v_1, v_2 in T.grid(4, 16):
                with T.sblock("finish"):
                    p2, v_3 = T.axis.remap("SS", [v_1, v_2])
                    T.reads(buffer[p2 * 16 + v_3])
                    T.writes(Y[b, (p0 * 4 + p2) * 16 + (m * 16 + v_3)])
                    if p0 * 4 + p2 < 10:
                        Y[b, (p0 * 4 + p2) * 16 + (m * 16 + v_3)] = buffer[p2 * 16 + v_3]
