# from tvm.script import tirx as T
# from tvm.tirx.layout import Axis

@T.prim_func(s_tir=True)
def linear(W_level1_words: T.Buffer(("n_W_level1_words",), "uint32"), W_level1_rank: T.Buffer(("n_W_level1_rank",), "uint16"), W_data: T.Buffer(("n_W_data",), "float32"), X: T.Buffer((1, 384), "float32"), Y: T.Buffer((1, 192), "float32")):
    n_W_level1_words = T.int32()
    n_W_level1_rank = T.int32()
    n_W_data = T.int32()
    T.func_attr({"tirx.noalias": True})
    # with T.sblock("root"):
    for v in T.parallel(12):
        with T.sblock("tile"):
            b = T.axis.opaque(1, v // 12)
            m = T.axis.opaque(1, 0)
            p0 = T.axis.opaque(12, v % 12)
            T.reads(W_level1_words[0:n_W_level1_words], W_level1_rank[0:n_W_level1_rank], W_data[0:n_W_data], X[0, 0:384], Y[0, 0:192])
            T.writes(Y[0, 0:192])
            buffer = T.sblock_alloc_buffer((16,), scope="local")
            for v_1 in range(16):
                with T.sblock("init"):
                    v_2 = T.axis.spatial(16, v_1)
                    T.reads()
                    T.writes(buffer[v_2])
                    buffer[v_2] = T.float32(0.0)
            with T.sblock("word"):
                T.reads(W_level1_words[0:n_W_level1_words], W_level1_rank[0:n_W_level1_rank], W_data[0:n_W_data], X[0, 0:384], Y[0, 0:192], buffer[0:16])
                T.writes(Y[0, 0:192], buffer[0:16])
                buffer_1 = T.sblock_alloc_buffer((1,), "uint64", scope="local")
                words: T.let[T.uint64] = T.Cast("uint64", W_level1_words[p0])
                words_1: T.let[T.uint64] = T.Cast("uint64", W_level1_words[p0])
                buffer_1[0] = words_1
                for v_1 in range(T.Cast("int32", T.popcount(words_1))):
                    with T.sblock("step"):
                        nth = T.axis.opaque(2147483647, v_1)
                        T.reads(W_level1_words[0:n_W_level1_words], W_level1_rank[0:n_W_level1_rank], W_data[0:n_W_data], X[0, 0:384], Y[0, 0:192], buffer[0:16], buffer_1[0])
                        T.writes(Y[0, 0:192], buffer[0:16], buffer_1[0])
                        place: T.let[T.int32] = T.Cast("int32", T.call_llvm_pure_intrin("uint64", "llvm.cttz", buffer_1[0], T.bool(True)))
                        buffer_1[0] = buffer_1[0] & buffer_1[0] - T.uint64(1)
                        rank: T.let[T.int32] = T.Cast("int32", W_level1_rank[p0])
                        position: T.let[T.int32] = rank + nth
                        with T.sblock("fma_16"):
                            T.reads(W_level1_words[0:n_W_level1_words], W_level1_rank[0:n_W_level1_rank], W_data[0:n_W_data], X[0, 0:384], Y[0, 0:192], buffer[0:16], buffer_1[0])
                            T.writes(Y[0, 0:192], buffer[0:16], buffer_1[0])
                            buffer[0:16] = buffer[T.Ramp(0, 1, 16)] + T.Broadcast(W_data[position], 16) * X[b, T.Ramp(place * 16 + m * 16, 1, 16)]
            for v_1 in range(16):
                with T.sblock("finish"):
                    v_2 = T.axis.spatial(16, v_1)
                    T.reads(buffer[v_2])
                    T.writes(Y[b, p0 * 16 + (m * 16 + v_2)])
                    Y[b, p0 * 16 + (m * 16 + v_2)] = buffer[v_2]
